//! Compressed blobs: the same bytes always, and nothing but whole streams accepted.

use std::io::{self, Read};

use super::*;
use crate::image::layer::{Compressed, Compression, CompressionSpec, compress, decompressor, sniff, write_compressed_layer};
use crate::oci::{Algorithm, Digest};

/// Bytes that compress like text does, the same on every machine.
fn text(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let words = ["layer", "digest", "whiteout", "the", "of", "\n", "snapshot", "0123", "\t", "{}"];
    let mut out = Vec::with_capacity(size + 16);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
        out.push(b' ');
    }
    out.truncate(size);
    out
}

/// Reads only so many bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn pack(bytes: &[u8], kind: Compression, level: Option<u32>, threads: usize, step: usize) -> (Vec<u8>, Compressed) {
    let mut out = Vec::new();
    let compressed = compress(Drip(bytes, step), &mut out, CompressionSpec { kind, level }, threads, Algorithm::default()).unwrap();
    assert_eq!(compressed.digest, Digest::sha256(&out));
    assert_eq!(compressed.diff_id.digest(), &Digest::sha256(bytes));
    assert_eq!((compressed.size, compressed.uncompressed_size), (out.len() as u64, bytes.len() as u64));
    (out, compressed)
}

fn open(blob: Vec<u8>, compression: Option<Compression>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decompressor(io::Cursor::new(blob), compression)?.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn blobs_do_not_depend_on_threads_or_the_sizes_of_reads() {
    for size in [0, 1, 1 << 20, (1 << 20) + 1, 9_000_000] {
        let bytes = text(size);
        for kind in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            let (blob, _) = pack(&bytes, kind, None, 1, usize::MAX);
            for (threads, step) in [(2, 1 << 16), (5, 70_001)] {
                assert!(pack(&bytes, kind, None, threads, step).0 == blob, "{kind:?} {size} {threads}");
            }
            assert!(open(blob, Some(kind)).unwrap() == bytes, "{kind:?} {size}");
        }
    }
}

#[test]
fn the_bytes_of_blobs_are_pinned() {
    let bytes = text(3_000_000);
    for (kind, level, expected) in [
        (Compression::Gzip, None, "sha256:e8910467325fff6a72634a46a08c015c438818d895cccdc457fb59275400574d"),
        (Compression::Gzip, Some(1), "sha256:ffa46d66242d9f213d71907c1913965d0c5bb5e59eab783dc45b60c747245195"),
        (Compression::Gzip, Some(9), "sha256:678150994c9b3f5a623cef9b634a67cf2337f047b23e096cc8270d7be38d3d35"),
        (Compression::Zstd, None, "sha256:faa4b72f7443d8fcf4b9144f6d22d4a2553c64093da5b8c3a1e6c0eb72fc8ee4"),
        (Compression::Zstd, Some(9), "sha256:49dcb1b64555a33b5b34cba0fe99c1fb654dd7bc6cd3abc1af49140d263db55d"),
    ] {
        assert_eq!(pack(&bytes, kind, level, 2, usize::MAX).1.digest.to_string(), expected, "{kind:?} {level:?}");
    }
}

#[test]
fn a_gzip_header_tells_nothing_of_the_machine() {
    let (blob, _) = pack(b"x", Compression::Gzip, None, 1, 1);
    assert_eq!(blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
}

#[test]
fn every_format_is_told_from_its_first_bytes() {
    let bytes = text(600_000);
    let mut bzip2 = Vec::new();
    bzip2::read::BzEncoder::new(&bytes[..], bzip2::Compression::fast()).read_to_end(&mut bzip2).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&bytes[..], 1).read_to_end(&mut xz).unwrap();
    let gzip = pack(&bytes, Compression::Gzip, None, 1, usize::MAX).0;
    let zstd = pack(&bytes, Compression::Zstd, None, 1, usize::MAX).0;
    for (kind, blob) in [
        (Compression::Gzip, gzip),
        (Compression::Zstd, zstd),
        (Compression::Bzip2, bzip2),
        (Compression::Xz, xz),
        (Compression::Uncompressed, bytes.clone()),
    ] {
        assert_eq!(sniff(&blob), kind);
        assert!(open(blob, None).unwrap() == bytes, "{kind:?}");
    }
    assert_eq!(sniff(b""), Compression::Uncompressed);
}

#[test]
fn members_and_frames_one_after_the_other_are_one_stream() {
    let bytes = text(400_000);
    for kind in [Compression::Gzip, Compression::Zstd] {
        let (blob, _) = pack(&bytes, kind, None, 1, usize::MAX);
        assert!(open([&blob[..], &blob].concat(), Some(kind)).unwrap() == [&bytes[..], &bytes].concat(), "{kind:?}");
    }
}

#[test]
fn a_stream_that_is_cut_or_has_a_tail_is_an_error_but_for_what_is_behind_gzip() {
    let bytes = text(700_000);
    for kind in [Compression::Gzip, Compression::Zstd] {
        let (blob, _) = pack(&bytes, kind, None, 1, usize::MAX);
        for cut in [0, 1, 5, blob.len() / 2, blob.len() - 1] {
            assert!(open(blob[..cut].to_vec(), Some(kind)).is_err(), "{kind:?} cut at {cut}");
        }
        for tail in [&b"garbage beyond the end"[..], &[0; 600]] {
            let opened = open([&blob[..], tail].concat(), Some(kind));
            match kind {
                // As gzip itself and pigz, which BuildKit reads it with.
                Compression::Gzip => assert!(opened.unwrap() == bytes, "a tail is passed over"),
                _ => assert!(opened.is_err(), "{kind:?} with a tail"),
            }
        }
        let mut flipped = blob.clone();
        flipped[blob.len() / 2] ^= 1;
        assert!(open(flipped, Some(kind)).is_err(), "{kind:?} with a flipped bit");
    }
}

#[test]
fn layers_are_not_written_as_bzip2() {
    let spec = CompressionSpec { kind: Compression::Bzip2, level: None };
    assert!(matches!(compress(&b""[..], io::sink(), spec, 1, Algorithm::default()), Err(Error::Format { format: "bzip2" })));
}

#[test]
fn a_writer_that_fails_ends_the_work_with_its_error() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(rustix::io::Errno::NOSPC.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("f"), text(12_000_000)).unwrap();
    for kind in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
        let spec = CompressionSpec { kind, level: Some(1) };
        let error = write_compressed_layer(temp.path(), &Vec::new().into(), Full, &LayerOptions::default(), spec, 3).unwrap_err();
        assert!(matches!(error, Error::Write { .. }), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_layer_goes_to_a_blob_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let layer = temp.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("f"), text(5_000_000)).unwrap();
    let mut blob = Vec::new();
    let spec = CompressionSpec { kind: Compression::Gzip, level: None };
    let (written, compressed) = write_compressed_layer(&layer, &Vec::new().into(), &mut blob, &LayerOptions::default(), spec, 2).unwrap();
    assert_eq!((written.diff_id.clone(), written.size), (compressed.diff_id, compressed.uncompressed_size));
    let target = temp.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let applied = apply(decompressor(io::Cursor::new(blob), None).unwrap(), &target, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.diff_id, written.diff_id);
    assert_eq!(describe(&target), describe(&layer));
}
