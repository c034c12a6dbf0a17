//! The client against a server with scripted faults, and against a real registry where one is installed. Everything is on loopback.

mod auth;
mod download;
mod manifests;
mod real;
mod server;
mod upload;

use crate::oci::{Descriptor, Digest, MediaType};

/// Bytes that no two offsets have in common.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::OciLayerGzip, Digest::sha256(content), content.len() as u64)
}
