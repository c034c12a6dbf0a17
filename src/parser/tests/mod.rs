//! Tests of the whole parser: files of `testdata/parser`, properties that hold for any text, and input made to be expensive.

mod cases;
mod dump;
mod frontends;
mod hostile;
mod mounts;
mod properties;
mod spans;
