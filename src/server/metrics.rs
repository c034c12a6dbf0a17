//! What the server counts, and how Prometheus reads it (its text format, version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::storage::{Collected, Totals};

/// Which requests are counted together: method, route, status.
type Kind = (&'static str, &'static str, u16);

/// The counters of one server.
#[derive(Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<Kind, u64>>,
    /// Microseconds of all requests, from their head to the end of their answer.
    micros: AtomicU64,
    in_flight: AtomicI64,
    connections: AtomicI64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    collections: AtomicU64,
    collected_blobs: AtomicU64,
    collected_bytes: AtomicU64,
}

impl Metrics {
    /// Notes that a request has come (1) or is done (-1).
    pub(super) fn in_flight(&self, change: i64) {
        self.in_flight.fetch_add(change, Ordering::Relaxed);
    }

    /// Notes that a connection is there (1) or gone (-1).
    pub(super) fn connections(&self, change: i64) {
        self.connections.fetch_add(change, Ordering::Relaxed);
    }

    /// Notes a request that is done.
    pub(super) fn request(&self, kind: Kind, micros: u64) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Notes bytes of a request's body.
    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes bytes of an answer's body.
    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes a garbage collection.
    pub(super) fn collected(&self, done: &Collected) {
        self.collections.fetch_add(1, Ordering::Relaxed);
        self.collected_blobs.fetch_add(done.blobs, Ordering::Relaxed);
        self.collected_bytes.fetch_add(done.bytes, Ordering::Relaxed);
    }

    /// Everything as text.
    pub(super) fn render(&self, totals: &Totals) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            let _ = writeln!(text, "# HELP strake_registry_{name} {help}\n# TYPE strake_registry_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "strake_registry_{name}{labels} {value}");
            }
        };
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count: u64 = requests.values().sum();
        let label = |(method, route, status): &Kind| format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        let samples: Vec<_> = requests.iter().map(|(kind, count)| (label(kind), count.to_string())).collect();
        family("requests_total", "counter", "Requests that were answered.", &samples);
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let samples = [("_sum".to_owned(), format!("{seconds:.6}")), ("_count".to_owned(), count.to_string())];
        family("request_duration_seconds", "summary", "Time from the head of a request to the end of its answer.", &samples);
        let one = |value: String| [(String::new(), value)];
        let counter = |value: &AtomicU64| one(value.load(Ordering::Relaxed).to_string());
        let gauge = |value: &AtomicI64| one(value.load(Ordering::Relaxed).to_string());
        family("requests_in_flight", "gauge", "Requests that are being answered.", &gauge(&self.in_flight));
        family("connections", "gauge", "Open connections.", &gauge(&self.connections));
        family("received_bytes_total", "counter", "Bytes of request bodies.", &counter(&self.bytes_in));
        family("sent_bytes_total", "counter", "Bytes of answers' bodies.", &counter(&self.bytes_out));
        family("uploads", "gauge", "Uploads that have begun and not ended.", &one(totals.uploads.to_string()));
        family("repositories", "gauge", "Repositories.", &one(totals.repositories.to_string()));
        family("manifests", "gauge", "Manifests in all repositories.", &one(totals.manifests.to_string()));
        family("blobs", "gauge", "Blobs in the storage.", &one(totals.blobs.to_string()));
        family("blob_bytes", "gauge", "Bytes of the blobs in the storage.", &one(totals.blob_bytes.to_string()));
        family("collections_total", "counter", "Garbage collections of this process.", &counter(&self.collections));
        family("collected_blobs_total", "counter", "Blobs that garbage collection removed.", &counter(&self.collected_blobs));
        family("collected_bytes_total", "counter", "Bytes that garbage collection freed.", &counter(&self.collected_bytes));
        text
    }
}
