//! What Strake keeps on disk. This part of it shows committed layers as one tree.

pub mod view;
