//! The requests of an upstream and the bytes it sent.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::http::Request;
use super::rule::matches;

/// One request that reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path, as it was sent.
    pub path: String,
    /// Its query without the question mark; empty when there was none.
    pub query: String,
    /// Its headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status it was answered with; 0 while there is no answer.
    pub status: u16,
    /// Body bytes written to the socket so far. Up to half a megabyte of them may be in its buffer.
    pub body_bytes: u64,
    /// The number of earlier requests whose body was incomplete when this request arrived.
    pub unfinished: usize,
}

impl Seen {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// A request in the log, with the figures that grow while it is answered.
#[derive(Debug)]
pub(super) struct Entry {
    method: String,
    target: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    unfinished: usize,
    /// Of the body; all of 64 bits until the answer begins.
    pub(super) length: AtomicU64,
    pub(super) status: AtomicU16,
    pub(super) body_bytes: AtomicU64,
}

impl Entry {
    /// Bytes are counted before they are sent, so a client that has them all finds the request finished.
    fn is_finished(&self) -> bool {
        self.body_bytes.load(Ordering::Acquire) >= self.length.load(Ordering::Acquire)
    }
}

/// Every request since the last `clear`.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Vec<Arc<Entry>>>);

impl Log {
    pub(super) fn add(&self, request: &Request) -> Arc<Entry> {
        let mut entries = self.0.lock().unwrap();
        let entry = Arc::new(Entry {
            method: request.method.clone(),
            target: request.target(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            unfinished: entries.iter().filter(|entry| !entry.is_finished()).count(),
            length: AtomicU64::new(u64::MAX),
            status: AtomicU16::new(0),
            body_bytes: AtomicU64::new(0),
        });
        entries.push(Arc::clone(&entry));
        entry
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        let entries = self.0.lock().unwrap();
        entries
            .iter()
            .map(|entry| Seen {
                method: entry.method.clone(),
                path: entry.path.clone(),
                query: entry.query.clone(),
                headers: entry.headers.clone(),
                status: entry.status.load(Ordering::Acquire),
                body_bytes: entry.body_bytes.load(Ordering::Acquire),
                unfinished: entry.unfinished,
            })
            .collect()
    }

    pub(super) fn count(&self, method: &str, part: &str) -> usize {
        let entries = self.0.lock().unwrap();
        entries.iter().filter(|entry| matches(method, part, &entry.method, &entry.target)).count()
    }

    pub(super) fn bytes(&self, part: &str) -> u64 {
        let entries = self.0.lock().unwrap();
        let matching = entries.iter().filter(|entry| entry.target.contains(part));
        matching.map(|entry| entry.body_bytes.load(Ordering::Acquire)).sum()
    }
}
