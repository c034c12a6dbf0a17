//! The folders of Strake that read what strangers wrote, under the library's own paths: the whole library takes ten times as long to instrument.

#[path = "../../src/context/mod.rs"]
pub mod context;
#[path = "../../src/diag/mod.rs"]
pub mod diag;
#[path = "../../src/graph/mod.rs"]
pub mod graph;
pub mod image;
#[path = "../../src/oci/mod.rs"]
pub mod oci;
#[path = "../../src/parser/mod.rs"]
pub mod parser;
#[path = "../../src/path/mod.rs"]
pub mod path;
#[path = "../../src/progress/mod.rs"]
pub mod progress;
pub mod registry;
pub mod store;
#[path = "../../src/sys/mod.rs"]
pub mod sys;
mod task;
