//! Background work: a queue with leases, and its history.
//!
//! A job that is queued or running is live. There is at most one live job of a kind and key. A
//! running job belongs to the worker that claimed it until its lease ends; then any worker may
//! claim it. The writes of a worker are conditional on the attempt that it claimed: they have no
//! effect once another attempt has begun.

mod claim;

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, OptionalExtension, QueryDsl, Queryable, Selectable,
    deserialize::FromSqlRow,
    dsl::{case_when, count_star},
    expression::AsExpression,
    sql_types::{BigInt, Integer, SmallInt},
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Db, DbError, columns, execute, load, on, to_column};
use crate::schema::jobs;
use oci_types::{Millis, small_int_column, time::MAX_CLOCK_ERROR};

pub use claim::{ClaimedJob, claim};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = SmallInt)]
pub enum JobState {
    /// It waits until it is due and a worker claims it.
    Queued,
    /// A worker has claimed it.
    Running,
    /// It failed permanently.
    Failed,
    /// It has succeeded.
    Succeeded,
    /// It was cancelled.
    Cancelled,
}

small_int_column!(JobState { Queued = 0, Running = 1, Failed = 2, Succeeded = 3, Cancelled = 4 });

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = jobs)]
pub struct JobRow {
    /// Its id. A later job has a higher one.
    pub id: i64,
    /// The kind of work.
    pub kind: String,
    /// Identifies the work among those of the kind.
    pub key: String,
    /// Its state.
    pub state: JobState,
    /// The number of attempts, the current one included.
    pub attempts: i32,
    /// The earliest time of the next attempt.
    pub run_at: Millis,
    /// When the lease of the current attempt ends.
    pub lease_until: Option<Millis>,
    /// How many of `total` units of work are done.
    pub done: Option<i64>,
    /// The number of units of work, as far as it is known.
    pub total: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was queued first.
    pub created_at: Millis,
    /// When it failed, succeeded or was cancelled.
    pub ended_at: Option<Millis>,
}

/// The progress of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many units of work are done.
    pub done: u64,
    /// The number of units of work.
    pub total: u64,
}

/// The result of renewing a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease was renewed.
    Renewed,
    /// The lease was renewed, but the job was cancelled and must end.
    Cancelled,
    /// Another attempt has begun, or the job has ended.
    Lost,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It has succeeded.
    Succeeded,
    /// It was cancelled.
    Cancelled,
    /// It failed permanently, for this reason.
    Failed(String),
}

/// The row of a claimed job while its attempt is the current one.
macro_rules! claimed {
    ($job:expr, $worker:expr) => {
        jobs::table
            .filter(jobs::id.eq($job.id))
            .filter(jobs::state.eq(JobState::Running))
            .filter(jobs::worker.eq($worker.to_owned()))
            .filter(jobs::attempts.eq($job.attempt))
    };
}

/// Queues a job to run at `run_at` or later, unless a job of its kind and key is queued. A running
/// job runs again after its current attempt. Returns whether the request had an effect. `payload`
/// is JSON.
///
/// # Errors
/// [`DbError`].
pub async fn enqueue(db: &Db, kind: &str, key: &str, payload: &str, run_at: Millis) -> Result<bool, DbError> {
    let (kind, key, payload) = (kind.to_owned(), key.to_owned(), payload.to_owned());
    db.transaction(move |conn| {
        async move {
            let query = diesel::insert_into(jobs::table)
                .values((
                    jobs::kind.eq(&kind),
                    jobs::key.eq(&key),
                    jobs::payload.eq(payload),
                    jobs::state.eq(JobState::Queued),
                    jobs::attempts.eq(0),
                    jobs::run_at.eq(run_at),
                    jobs::created_at.eq(Millis::now()),
                ))
                .on_conflict_do_nothing();
            if on!(conn, |c| query.execute(c))? == 1 {
                return Ok(true);
            }
            let running = jobs::table
                .filter(jobs::kind.eq(&kind).and(jobs::key.eq(&key)))
                .filter(jobs::state.eq(JobState::Running).and(jobs::rerun.eq(false)));
            let query = diesel::update(running).set(jobs::rerun.eq(true));
            Ok(on!(conn, |c| query.execute(c))? == 1)
        }
        .boxed()
    })
    .await
}

/// Renews the lease of a claimed job until `until`, and records its progress.
///
/// # Errors
/// [`DbError`].
pub async fn renew(
    db: &Db,
    job: &ClaimedJob,
    worker: &str,
    until: Millis,
    progress: Option<Progress>,
) -> Result<Renewal, DbError> {
    let (done, total) = (
        progress.map(|progress| to_column(progress.done)),
        progress.map(|progress| to_column(progress.total)),
    );
    let query = diesel::update(claimed!(job, worker))
        .set((jobs::lease_until.eq(until), jobs::done.eq(done), jobs::total.eq(total)))
        .returning(jobs::cancelled);
    let cancelled: Option<bool> = db
        .write(move |conn| async move { Ok(on!(conn, |c| query.get_result(c)).optional()?) }.boxed())
        .await?;
    Ok(match cancelled {
        Some(false) => Renewal::Renewed,
        Some(true) => Renewal::Cancelled,
        None => Renewal::Lost,
    })
}

/// Ends a claimed job and keeps it in the history. A job that was requested again while it ran is
/// queued instead, unless it was cancelled. Returns false if the attempt is not the current one.
///
/// # Errors
/// [`DbError`].
pub async fn finish(db: &Db, job: &ClaimedJob, worker: &str, end: End, now: Millis) -> Result<bool, DbError> {
    let (state, error) = match end {
        End::Succeeded => (JobState::Succeeded, None),
        End::Cancelled => (JobState::Cancelled, None),
        End::Failed(error) => (JobState::Failed, Some(error)),
    };
    let reruns = || jobs::rerun.and(jobs::cancelled.eq(false));
    let query = diesel::update(claimed!(job, worker)).set((
        jobs::state.eq(case_when(reruns(), JobState::Queued.into_sql::<SmallInt>())
            .otherwise(state.into_sql::<SmallInt>())),
        jobs::ended_at.eq(case_when(reruns().eq(false), now.into_sql::<BigInt>())),
        jobs::attempts.eq(case_when(reruns(), 0.into_sql::<Integer>()).otherwise(jobs::attempts)),
        jobs::run_at.eq(case_when(reruns(), now.into_sql::<BigInt>()).otherwise(jobs::run_at)),
        jobs::rerun.eq(false),
        jobs::worker.eq(None::<String>),
        jobs::lease_until.eq(None::<Millis>),
        jobs::error.eq(error),
    ));
    Ok(execute!(db, query)? == 1)
}

/// The changes that queue a running job, or end it if it was cancelled.
macro_rules! queue_again {
    ($now:expr) => {
        (
            jobs::state.eq(case_when(jobs::cancelled, JobState::Cancelled.into_sql::<SmallInt>())
                .otherwise(JobState::Queued.into_sql::<SmallInt>())),
            jobs::ended_at.eq(case_when(jobs::cancelled, $now.into_sql::<BigInt>())),
            jobs::worker.eq(None::<String>),
            jobs::lease_until.eq(None::<Millis>),
        )
    };
}

/// Queues a claimed job for another attempt at `run_at` or later, unless it was cancelled. Returns
/// false if the attempt is not the current one.
///
/// # Errors
/// [`DbError`].
pub async fn retry(
    db: &Db,
    job: &ClaimedJob,
    worker: &str,
    run_at: Millis,
    error: &str,
) -> Result<bool, DbError> {
    let again = queue_again!(Millis::now());
    let query = diesel::update(claimed!(job, worker)).set((
        again,
        jobs::run_at.eq(run_at),
        jobs::error.eq(error.to_owned()),
    ));
    Ok(execute!(db, query)? == 1)
}

/// Cancels a live job. A queued one ends at once, a running one when its worker renews the lease. Returns false if the job
/// is not live.
///
/// # Errors
/// [`DbError`].
pub async fn cancel(db: &Db, id: i64, now: Millis) -> Result<bool, DbError> {
    let live = jobs::table.filter(jobs::id.eq(id)).filter(jobs::state.le(JobState::Running));
    let queued = || jobs::state.eq(JobState::Queued);
    let query = diesel::update(live).set((
        jobs::cancelled.eq(true),
        jobs::ended_at.eq(case_when(queued(), now.into_sql::<BigInt>())),
        jobs::state
            .eq(case_when(queued(), JobState::Cancelled.into_sql::<SmallInt>()).otherwise(jobs::state)),
    ));
    Ok(execute!(db, query)? == 1)
}

/// Queues the jobs that a worker has claimed, when the worker stops. Cancelled jobs end instead.
///
/// # Errors
/// [`DbError`].
pub async fn release_all(db: &Db, worker: &str) -> Result<(), DbError> {
    let claimed =
        jobs::table.filter(jobs::state.eq(JobState::Running)).filter(jobs::worker.eq(worker.to_owned()));
    execute!(db, diesel::update(claimed).set(queue_again!(Millis::now())))?;
    Ok(())
}

/// Makes jobs due that were queued, claimed or put off with a clock that was ahead: otherwise they
/// would wait until that time. No retry is put off by more than `max_delay`, and no lease is longer
/// than `max_lease`. Returns their number.
///
/// # Errors
/// [`DbError`].
pub async fn reset_ahead(
    db: &Db,
    max_lease: Duration,
    max_delay: Duration,
    now: Millis,
) -> Result<usize, DbError> {
    let latest = now.after(MAX_CLOCK_ERROR);
    let is_ahead = || jobs::created_at.gt(latest);
    let queued = jobs::table
        .filter(jobs::state.eq(JobState::Queued))
        .filter(is_ahead().or(jobs::run_at.gt(latest.after(max_delay))));
    let claimed = jobs::table
        .filter(jobs::state.eq(JobState::Running))
        .filter(jobs::lease_until.gt(latest.after(max_lease)));
    let created_at = case_when(is_ahead(), now.into_sql::<BigInt>()).otherwise(jobs::created_at);
    let due = diesel::update(queued).set((jobs::run_at.eq(now), jobs::created_at.eq(created_at)));
    let queued = execute!(db, due)?;
    let claimed = execute!(db, diesel::update(claimed).set(jobs::lease_until.eq(now)))?;
    Ok(queued + claimed)
}

/// Deletes up to `limit` jobs that ended before `before`. Returns their number.
///
/// # Errors
/// [`DbError`].
pub async fn delete_ended(db: &Db, before: Millis, limit: i64) -> Result<usize, DbError> {
    db.transaction(move |conn| {
        async move {
            let query = jobs::table
                .filter(jobs::ended_at.is_not_null().and(jobs::ended_at.lt(before)))
                .order(jobs::ended_at)
                .limit(limit)
                .select(jobs::id);
            let ids: Vec<i64> = on!(conn, |c| query.load(c))?;
            if ids.is_empty() {
                return Ok(0);
            }
            let query = diesel::delete(jobs::table.filter(jobs::id.eq_any(ids)));
            Ok(on!(conn, |c| query.execute(c))?)
        }
        .boxed()
    })
    .await
}

/// The number of jobs, by kind and state.
///
/// # Errors
/// [`DbError`].
pub async fn counts(db: &Db) -> Result<Vec<(String, JobState, i64)>, DbError> {
    let query = jobs::table.group_by((jobs::kind, jobs::state)).order((jobs::kind, jobs::state)).select((
        jobs::kind,
        jobs::state,
        count_star(),
    ));
    load!(db, query)
}

/// The last `limit` jobs, the latest first.
///
/// # Errors
/// [`DbError`].
pub async fn list(db: &Db, limit: i64) -> Result<Vec<JobRow>, DbError> {
    load!(db, jobs::table.order(jobs::id.desc()).limit(limit).select(columns::<JobRow>()))
}
