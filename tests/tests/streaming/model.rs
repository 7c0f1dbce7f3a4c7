//! Random interleavings of readers, windows, breaks, lies and restarts, against a model that is the blob itself: what is
//! served is always a prefix or a window of it, what is stored is it, and it is fetched about once.

use futures::future::join_all;
use proptest::{collection::vec, prelude::*, test_runner::Config};
use tidegate_tests::chaos::Fault;
use tokio::runtime::Runtime;

use crate::cold::{Cold, MIB};

const SIZE: usize = 12 * MIB + 12_345;

/// Small segments, so that a small blob has many.
const CONTENT: &str = "segment = \"1MiB\"\njump_ahead = \"1MiB\"\nfinish_abandoned = \"60%\"";

/// What one interruption may cost: what lies in buffers between upstream and the file.
const IN_FLIGHT: usize = 3 * MIB / 2;

/// A client.
#[derive(Debug, Clone)]
struct Read {
    /// What it asks for, in parts of a thousand of the blob; all of it when there is none.
    window: Option<(usize, usize)>,
    /// After how much of that it leaves, in percent.
    leaves_at: Option<usize>,
}

/// What happens to a download.
#[derive(Debug, Clone)]
enum Mishap {
    Cut(usize),
    Reset(usize),
    Slow,
    NoRange,
    Lie(usize),
}

/// Clients that come at the same time.
#[derive(Debug, Clone)]
struct Step {
    mishaps: Vec<Mishap>,
    reads: Vec<Read>,
    restart: bool,
}

fn reads() -> impl Strategy<Value = Read> {
    let window = prop::option::of((0..1000_usize, 1..400_usize));
    (window, prop::option::of(0..100_usize)).prop_map(|(window, leaves_at)| Read { window, leaves_at })
}

fn steps(mishap: impl Strategy<Value = Mishap> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let step = (vec(mishap, 0..4), vec(reads(), 1..6), prop::bool::weighted(0.3));
    vec(step.prop_map(|(mishaps, reads, restart)| Step { mishaps, reads, restart }), 1..5)
}

fn breaks() -> impl Strategy<Value = Mishap> + Clone {
    prop_oneof![(0..SIZE).prop_map(Mishap::Cut), (0..SIZE).prop_map(Mishap::Reset), Just(Mishap::Slow)]
}

fn lies() -> impl Strategy<Value = Mishap> + Clone {
    prop_oneof![breaks(), Just(Mishap::NoRange), (0..SIZE).prop_map(Mishap::Lie)]
}

impl Mishap {
    fn fault(&self) -> Fault {
        let offset = |at: usize| u64::try_from(at).unwrap();
        match self {
            Self::Cut(at) => Fault::CutAfter(offset(*at)),
            Self::Reset(at) => Fault::ResetAfter(offset(*at)),
            Self::Slow => Fault::Throttle { bytes_per_second: 40 << 20 },
            Self::NoRange => Fault::IgnoreRange,
            Self::Lie(at) => Fault::WrongByteAt(offset(*at)),
        }
    }
}

/// How one read went.
struct Served {
    /// Whether what came is what stands there in the blob.
    right: bool,
    /// Whether all came that the client stayed for.
    complete: bool,
    whole: bool,
}

async fn read(cold: &Cold, read: &Read) -> Served {
    let (start, length) = read.window.unwrap_or((0, 1000));
    let start = SIZE / 1000 * start;
    let end = if read.window.is_none() { SIZE } else { (start + SIZE / 1000 * length).min(SIZE) };
    let range = format!("bytes={start}-{}", end - 1);
    let headers = [("range", range.as_str())];
    let mut client = cold.raw(if read.window.is_some() { &headers } else { &[] }).await;
    let whole = start == 0 && end == SIZE;
    if client.status >= 500 {
        return Served { right: true, complete: false, whole };
    }
    assert_eq!(client.status, if read.window.is_some() { 206 } else { 200 });
    assert_eq!(client.header("content-length"), (end - start).to_string());
    let stays_for = (end - start) / 100 * read.leaves_at.unwrap_or(100);
    let stays_for = if read.leaves_at.is_some() { stays_for } else { end - start };
    let bytes = client.up_to(stays_for).await;
    let complete = bytes.len() == stays_for;
    Served { right: cold.bytes[start..].starts_with(&bytes), complete, whole: whole && stays_for == SIZE }
}

/// Nothing else is ever stored.
fn assert_store_is_right(cold: &Cold) {
    if let Ok(stored) = std::fs::read(cold.world.blob_path(&cold.digest)) {
        assert!(stored == cold.bytes, "other bytes are stored");
    }
}

async fn honest(steps: Vec<Step>) {
    let mut cold = Cold::with(SIZE, CONTENT).await;
    let mut interruptions = 1;
    for step in steps {
        cold.upstream.clear_rules();
        step.mishaps.iter().for_each(|mishap| cold.on_blob(1, [mishap.fault()]));
        for (served, asked) in
            join_all(step.reads.iter().map(|asked| read(&cold, asked))).await.iter().zip(&step.reads)
        {
            assert!(served.right, "{asked:?} got other bytes");
            assert!(served.complete, "{asked:?} was cut off");
        }
        interruptions += step.reads.len() + step.mishaps.len();
        assert_store_is_right(&cold);
        if step.restart {
            interruptions += 1;
            cold = cold.restart(CONTENT).await;
        }
    }
    cold.upstream.clear_rules();
    cold.assert_served().await;
    cold.assert_stored().await;
    cold.assert_upstream_bytes(interruptions * IN_FLIGHT);
}

async fn lying(steps: Vec<Step>) {
    let mut cold = Cold::with(SIZE, CONTENT).await;
    for step in steps {
        cold.upstream.clear_rules();
        step.mishaps.iter().for_each(|mishap| cold.on_blob(1, [mishap.fault()]));
        for (served, asked) in
            join_all(step.reads.iter().map(|asked| read(&cold, asked))).await.iter().zip(&step.reads)
        {
            assert!(served.right || !(served.whole && served.complete), "{asked:?} got a wrong blob");
        }
        assert_store_is_right(&cold);
        if step.restart {
            cold = cold.restart(CONTENT).await;
        }
    }
    // Upstream tells the truth from now on. What is left of the lies is found out by at most a few.
    cold.upstream.clear_rules();
    let all = Read { window: None, leaves_at: None };
    for attempt in 0.. {
        let served = read(&cold, &all).await;
        assert!(served.right || !served.complete);
        if served.complete {
            break;
        }
        assert!(attempt < 4, "upstream is right, and the blob is still not served");
    }
    cold.assert_stored().await;
}

fn config(cases: u32) -> Config {
    Config { cases, max_shrink_iters: 12, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config(16))]
    #[test]
    fn whatever_breaks_everybody_gets_right_bytes_and_upstream_is_asked_once(steps in steps(breaks())) {
        Runtime::new().unwrap().block_on(honest(steps));
    }

    #[test]
    fn whatever_upstream_says_nobody_gets_a_wrong_blob_and_nothing_wrong_is_stored(steps in steps(lies())) {
        Runtime::new().unwrap().block_on(lying(steps));
    }
}
