//! `slow-readers URL FILE READERS RATE SECONDS`: so many clients GET one URL, take RATE bytes a second each, compare the
//! beginning of each piece with FILE, and leave after SECONDS.
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
use std::time::Duration;

use serde_json::json;
use tidegate_tests::load::{self, Client, Expected, Place};
use tokio::time::{Instant, sleep_until};

/// How often a reader takes something.
const TURN: Duration = Duration::from_millis(100);
/// Small, so that slowness reaches the server.
const RECEIVE_BUFFER: u32 = 32 * 1024;

/// What all readers share.
struct Blob {
    place: Place,
    expected: Expected,
    /// Bytes that a reader takes each turn.
    portion: usize,
    until: Instant,
    started: AtomicU64,
    bytes: AtomicU64,
    wrong: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file, readers, rate, seconds] = arguments.as_slice() else {
        panic!("slow-readers URL FILE READERS RATE SECONDS");
    };
    let rate: usize = rate.parse().expect("a number of bytes");
    let blob = Arc::new(Blob {
        place: Place::parse(url),
        expected: Expected::from_file(file).expect("the file with the right bytes"),
        portion: rate / 10,
        until: Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds")),
        started: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
    });
    let readers: usize = readers.parse().expect("a number of readers");
    let failures = load::all(readers, || read(Arc::clone(&blob))).await;
    let report = json!({
        "readers": readers,
        "started": blob.started.load(Ordering::Relaxed),
        "wrong": blob.wrong.load(Ordering::Relaxed),
        "bytes": blob.bytes.load(Ordering::Relaxed),
        "failures": failures.len(),
        "failure": failures.first(),
    });
    println!("{report}");
}

async fn read(blob: Arc<Blob>) -> io::Result<()> {
    let mut client = Client::connect(blob.place.address, Some(RECEIVE_BUFFER)).await?;
    let head = client.get(&blob.place.path, None).await?;
    if head.status != 200 || head.length != blob.expected.len() {
        return Err(io::Error::other(format!("status {} with {} bytes", head.status, head.length)));
    }
    blob.started.fetch_add(1, Ordering::Relaxed);
    let mut turn = Instant::now();
    let mut show = |offset: u64, piece: &[u8]| {
        blob.bytes.fetch_add(u64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
        blob.wrong.fetch_add(u64::from(!blob.expected.begins(offset, piece)), Ordering::Relaxed);
    };
    while turn < blob.until && client.receive(blob.portion, &mut show).await? {
        turn += TURN;
        sleep_until(turn).await;
    }
    Ok(())
}
