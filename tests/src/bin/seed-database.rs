//! Seeds a database with as many rows as a registry has after years, and measures the queries of the hot paths on it.
//!
//! `seed-database URL` migrates and seeds the database; `seed-database URL --measure` measures the queries on a seeded one.
//! Both print a line of JSON. Flags, each with a number: `--blobs`, `--manifests`, `--repositories`, `--tags` (of one
//! repository, besides one for each manifest), `--jobs`; a measurement needs the same ones. `--rounds`: the number of times
//! that each query is executed. For a comparison with a small database, seed another one with `--blobs 100 --manifests 10
//! --repositories 5 --tags 10 --jobs 10`.
#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::unwrap_used,
    reason = "its caller reads what it prints, and reports a panic"
)]

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use oci_types::{Digest, Millis, RepositoryName, Tag};
use serde_json::{Map, Value, json};
use shared_models::{
    db::{
        Db, DbConfig, DbError, blobs, fills, jobs, links, manifests,
        repositories::{self, RepositoryKey},
        tags,
    },
    migrate::migrate,
    test_seed::{self, Counts},
};

#[tokio::main]
async fn main() {
    let mut url = None;
    let mut counts =
        Counts { blobs: 1_000_000, manifests: 100_000, repositories: 20_000, tags: 10_000, jobs: 100_000 };
    let (mut rounds, mut measures) = (2_000, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().unwrap().parse().unwrap();
        match argument.as_str() {
            "--blobs" => counts.blobs = number(),
            "--manifests" => counts.manifests = number(),
            "--repositories" => counts.repositories = number(),
            "--tags" => counts.tags = number(),
            "--jobs" => counts.jobs = number(),
            "--rounds" => rounds = number(),
            "--measure" => measures = true,
            flag if flag.starts_with('-') => panic!("there is no flag {flag}"),
            _ => url = Some(argument),
        }
    }
    let url = url.unwrap_or_else(|| panic!("seed-database URL [FLAG NUMBER]…"));
    let config =
        DbConfig { url, max_connections: 4, wait: Duration::from_secs(10), prepared_statements: true };
    let report = if measures { measure(&config, counts, rounds).await } else { seed(&config, counts).await };
    println!("{}", report.unwrap_or_else(|error| panic!("{error}")));
}

async fn seed(config: &DbConfig, counts: Counts) -> Result<Value, DbError> {
    migrate(config).await?;
    let started = Instant::now();
    test_seed::seed(config, &counts).await?;
    Ok(json!({
        "blobs": counts.blobs,
        "manifests": counts.manifests,
        "repositories": counts.repositories,
        "seconds": started.elapsed().as_secs_f64(),
    }))
}

/// One of the many things that a question can be about.
struct Subject {
    db: Db,
    number: u64,
    repository: RepositoryKey,
    name: RepositoryName,
    tag: Tag,
    manifest: Digest,
    blob: Digest,
}

type Question = fn(&Subject) -> BoxFuture<'_, Result<(), DbError>>;

/// Makes a closure the function that it may be.
fn same(question: Question) -> Question {
    question
}

/// A name, and a question that is answered for each subject.
macro_rules! questions {
    ($($name:literal: |$subject:ident| $query:expr;)*) => {
        [$(($name, same(|$subject| Box::pin(async move { $query.await.map(drop) })))),*]
    };
}

async fn measure(config: &DbConfig, counts: Counts, rounds: u64) -> Result<Value, DbError> {
    let db = Db::connect(config).await?;
    let mut subjects = Vec::new();
    for step in 0..rounds {
        // Far apart, in no order, and the same each time.
        let number = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let (repository, tag, blob) = counts.tagged(number);
        let key = repository.key();
        let row = tags::find(&db, &key, &tag).await?.unwrap();
        subjects.push(Subject {
            db: db.clone(),
            number: step,
            name: RepositoryName::parse("seed/team50/app50").unwrap(),
            repository: key,
            tag,
            manifest: row.manifest,
            blob,
        });
    }
    let questions = questions! {
        "tags::find": |s| tags::find(&s.db, &s.repository, &s.tag);
        "links::manifest": |s| links::manifest(&s.db, &s.repository, &s.manifest, false);
        "manifests::load": |s| manifests::load(&s.db, &s.manifest);
        "links::blob": |s| links::blob(&s.db, &s.repository, &s.blob);
        "blobs::find": |s| blobs::find(&s.db, &s.blob);
        "blobs::sources": |s| blobs::sources(&s.db, &s.blob, None, Millis::now());
        "repositories::catalog": |s| repositories::catalog(&s.db, Some(&s.name), 5);
        "tags::list": |s| tags::list(&s.db, &s.repository, None, 5);
        "tags::mark_checked": |s| check(s);
        "blobs::touch_read": |s| touch(s);
        "blobs::expire_pending": |s| blobs::expire_pending(&s.db, Millis(1));
        "jobs::claim": |s| work(s);
        "fills::claim": |s| lease(s);
    };
    let mut report = Map::new();
    for (name, question) in questions {
        let mut times = Vec::new();
        for subject in &subjects {
            let asked = Instant::now();
            question(subject).await?;
            times.push(asked.elapsed().as_micros());
        }
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied();
        report.insert(name.to_owned(), json!({ "median_us": at(50), "p99_us": at(99) }));
    }
    Ok(Value::Object(report))
}

async fn check(subject: &Subject) -> Result<(), DbError> {
    let check = tags::TagCheck { tag: subject.tag.clone(), began: Millis::now() };
    tags::mark_checked(&subject.db, &subject.repository, &check, &subject.manifest).await.map(drop)
}

/// The blob, and one that nearly every repository has.
async fn touch(subject: &Subject) -> Result<(), DbError> {
    let now = Millis::now();
    let everywhere = Digest::sha256(b"blob 0");
    blobs::touch_read(&subject.db, vec![(subject.blob.clone(), now), (everywhere, now)]).await
}

/// Queues a job, claims it, and finishes it.
async fn work(subject: &Subject) -> Result<(), DbError> {
    let (db, now) = (&subject.db, Millis::now());
    jobs::enqueue(db, "measured", &subject.number.to_string(), "{}", now).await?;
    let job = jobs::claim(db, "measured", "me", Duration::from_secs(60), now).await?.unwrap();
    jobs::finish(db, &job, "me", jobs::End::Succeeded, now).await.map(drop)
}

async fn lease(subject: &Subject) -> Result<(), DbError> {
    let now = Millis::now();
    fills::claim(&subject.db, &subject.blob, "me", now.after(Duration::from_secs(60)), now).await?;
    fills::release(&subject.db, &subject.blob, "me").await
}
