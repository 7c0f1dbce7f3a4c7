//! `range-clients URL FILE READERS WINDOW`: so many readers share the windows of a blob among them, each asking for one
//! window of WINDOW bytes after the other, as parallel pullers do, and compare every byte with FILE.
//!
//! Prints one line of JSON.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "its caller reads what it prints, and reports a panic"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use tidegate_tests::load::{self, Client, Expected, Place};

/// What all readers share.
struct Blob {
    place: Place,
    expected: Expected,
    window: u64,
    /// Where the next window begins that nobody reads yet.
    next: AtomicU64,
    windows: AtomicU64,
    bytes: AtomicU64,
    wrong: AtomicU64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file, readers, window] = arguments.as_slice() else {
        panic!("range-clients URL FILE READERS WINDOW");
    };
    let blob = Arc::new(Blob {
        place: Place::parse(url),
        expected: Expected::from_file(file).expect("the file with the right bytes"),
        window: window.parse().expect("a number of bytes"),
        next: AtomicU64::new(0),
        windows: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
    });
    let readers: usize = readers.parse().expect("a number of readers");
    let started = Instant::now();
    let failures = load::all(readers, || read(Arc::clone(&blob))).await;
    let report = json!({
        "readers": readers,
        "windows": blob.windows.load(Ordering::Relaxed),
        "wrong": blob.wrong.load(Ordering::Relaxed),
        "bytes": blob.bytes.load(Ordering::Relaxed),
        "failures": failures.len(),
        "failure": failures.first(),
        "last_byte_s": started.elapsed().as_secs_f64(),
    });
    println!("{report}");
}

async fn read(blob: Arc<Blob>) -> io::Result<()> {
    let mut client = Client::connect(blob.place.address, None).await?;
    loop {
        let start = blob.next.fetch_add(blob.window, Ordering::Relaxed);
        let end = (start + blob.window).min(blob.expected.len());
        if start >= end {
            return Ok(());
        }
        let head = client.get(&blob.place.path, Some(start..end)).await?;
        let mut right = head.status == 206 && head.length == end - start;
        let mut show = |offset: u64, piece: &[u8]| {
            right &= blob.expected.has(start + offset, piece);
            blob.bytes.fetch_add(u64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
        };
        while client.receive(usize::MAX, &mut show).await? {}
        blob.windows.fetch_add(1, Ordering::Relaxed);
        blob.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
    }
}
