//! `cold-clients URL FILE CLIENTS TIMES`: so many clients GET one URL at once, each so many times in a row on one
//! connection, and compare what comes with FILE: the first client every byte, the others the beginning of each piece.
//!
//! Prints one line of JSON; times count from the start that all clients have in common.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "its caller reads what it prints, and reports a panic"
)]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_tests::load::{Client, Expected, Place};
use tokio::task::JoinSet;

/// What one client got.
struct Got {
    first_byte: Duration,
    last_byte: Duration,
    bytes: u64,
    right: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file, clients, times] = arguments.as_slice() else {
        panic!("cold-clients URL FILE CLIENTS TIMES");
    };
    let place = Place::parse(url);
    let expected = Arc::new(Expected::from_file(file).expect("the file with the right bytes"));
    let clients: usize = clients.parse().expect("a number of clients");
    let times: usize = times.parse().expect("a number of times");
    let started = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(run(place.clone(), Arc::clone(&expected), number == 0, times, started));
    }
    let (mut got, mut failures) = (Vec::new(), Vec::new());
    while let Some(ended) = running.join_next().await {
        match ended.expect("no client panics") {
            Ok(one) => got.push(one),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let mut first: Vec<f64> = got.iter().map(|one| one.first_byte.as_secs_f64()).collect();
    first.sort_by(f64::total_cmp);
    let last = got.iter().map(|one| one.last_byte).max().unwrap_or_default();
    let report = json!({
        "clients": clients,
        "right": got.iter().filter(|one| one.right).count(),
        "failures": failures.len(),
        "failure": failures.first(),
        "bytes": got.iter().map(|one| one.bytes).sum::<u64>(),
        "first_byte_min_s": first.first(),
        "first_byte_median_s": first.get(first.len() / 2),
        "first_byte_max_s": first.last(),
        "last_byte_s": last.as_secs_f64(),
    });
    println!("{report}");
}

async fn run(
    place: Place,
    expected: Arc<Expected>,
    thorough: bool,
    times: usize,
    started: Instant,
) -> io::Result<Got> {
    let mut client = Client::connect(place.address, None).await?;
    let mut got = Got { first_byte: Duration::ZERO, last_byte: Duration::ZERO, bytes: 0, right: true };
    for _ in 0..times {
        let head = client.get(&place.path, None).await?;
        got.right &= head.status == 200 && head.length == expected.len();
        let show = |offset, piece: &[u8]| {
            if got.bytes == 0 {
                got.first_byte = started.elapsed();
            }
            got.bytes += u64::try_from(piece.len()).unwrap_or(0);
            got.right &= if thorough { expected.has(offset, piece) } else { expected.begins(offset, piece) };
        };
        let mut show = show;
        while client.receive(usize::MAX, &mut show).await? {}
    }
    got.last_byte = started.elapsed();
    Ok(got)
}
