use std::{collections::HashSet, time::Duration};

use diesel::{ExpressionMethods, QueryDsl};

use super::{TestDb, on_both};
use crate::db::{
    Db, execute,
    jobs::{self, ClaimedJob, End, JobRow, JobState, Progress, Renewal},
};
use oci_types::{Millis, time::MAX_CLOCK_ERROR};

const LEASE: Duration = Duration::from_millis(100);

async fn enqueue(db: &Db, key: &str, at: i64) -> bool {
    jobs::enqueue(db, "k", key, r#"{"a":1}"#, Millis(at)).await.unwrap()
}

async fn claim(db: &Db, worker: &str, now: i64) -> Option<ClaimedJob> {
    jobs::claim(db, "k", worker, LEASE, Millis(now)).await.unwrap()
}

async fn finish(db: &Db, job: &ClaimedJob, worker: &str, end: End, now: i64) -> bool {
    jobs::finish(db, job, worker, end, Millis(now)).await.unwrap()
}

/// The jobs, the latest first.
async fn rows(db: &Db) -> Vec<JobRow> {
    jobs::list(db, 10).await.unwrap()
}

on_both! {
    async fn a_key_has_one_live_job(db: TestDb) {
        assert!(enqueue(&db, "key", 1).await);
        assert!(!enqueue(&db, "key", 1).await);
        assert!(jobs::enqueue(&db, "other", "key", "{}", Millis(1)).await.unwrap());
        let job = claim(&db, "w", 1).await.unwrap();
        assert!(finish(&db, &job, "w", End::Succeeded, 2).await);
        assert!(enqueue(&db, "key", 1).await, "one that has ended does not count");
        assert_eq!(rows(&db).await.len(), 3);
    }

    async fn a_job_that_is_requested_while_it_runs_runs_again(db: TestDb) {
        enqueue(&db, "key", 0).await;
        let job = claim(&db, "w", 0).await.unwrap();
        assert!(enqueue(&db, "key", 0).await);
        assert!(!enqueue(&db, "key", 0).await, "once is enough");
        assert_eq!(claim(&db, "other", 0).await, None, "not beside the running attempt");
        assert!(finish(&db, &job, "w", End::Succeeded, 7).await);
        let row = &rows(&db).await[0];
        assert_eq!((row.state, row.attempts, row.run_at, row.ended_at), (JobState::Queued, 0, Millis(7), None));
        let again = claim(&db, "w", 7).await.unwrap();
        assert_eq!((again.id, again.attempt), (job.id, 1));
        assert!(finish(&db, &again, "w", End::Succeeded, 8).await);
        assert_eq!(rows(&db).await[0].state, JobState::Succeeded);
    }

    async fn jobs_of_a_kind_are_claimed_when_due_and_the_longest_due_first(db: TestDb) {
        for (key, at) in [("late", 30), ("early", 10), ("middle", 20)] {
            enqueue(&db, key, at).await;
        }
        assert_eq!(claim(&db, "w", 9).await, None);
        assert_eq!(jobs::claim(&db, "other", "w", LEASE, Millis(20)).await.unwrap(), None);
        let first = claim(&db, "w", 20).await.unwrap();
        assert_eq!((first.key.as_str(), first.payload.as_str(), first.attempt), ("early", r#"{"a":1}"#, 1));
        assert_eq!(claim(&db, "w", 20).await.unwrap().key, "middle");
        assert_eq!(claim(&db, "w", 20).await, None);
    }

    async fn no_two_workers_get_the_same_job(db: TestDb) {
        for number in 0..30 {
            enqueue(&db, &number.to_string(), 1).await;
        }
        let work = |worker: usize| {
            let db = db.db.clone();
            async move {
                let mut keys = Vec::new();
                while let Some(job) = claim(&db, &worker.to_string(), 1).await {
                    keys.push(job.key);
                }
                keys
            }
        };
        let claimed = futures::future::join_all((0..6).map(|worker| tokio::spawn(work(worker)))).await;
        let claimed: Vec<String> = claimed.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(claimed.len(), 30);
        assert_eq!(claimed.into_iter().collect::<HashSet<_>>().len(), 30);
    }

    async fn a_job_whose_lease_has_ended_is_claimed_by_another_worker(db: TestDb) {
        enqueue(&db, "key", 0).await;
        let lost = claim(&db, "dead", 0).await.unwrap();
        assert_eq!(jobs::renew(&db, &lost, "dead", Millis(200), None).await.unwrap(), Renewal::Renewed);
        assert_eq!(claim(&db, "next", 199).await, None);
        let job = claim(&db, "next", 200).await.unwrap();
        assert_eq!((job.id, job.attempt), (lost.id, 2));
        // Later writes of the first worker have no effect.
        assert_eq!(jobs::renew(&db, &lost, "dead", Millis(900), None).await.unwrap(), Renewal::Lost);
        assert!(!finish(&db, &lost, "dead", End::Succeeded, 1).await);
        assert!(!jobs::retry(&db, &lost, "dead", Millis(1), "x").await.unwrap());
        jobs::release_all(&db, "dead").await.unwrap();
        assert!(finish(&db, &job, "next", End::Succeeded, 1).await);
    }

    async fn an_attempt_is_not_mistaken_for_a_later_one_of_the_same_worker(db: TestDb) {
        enqueue(&db, "key", 0).await;
        let first = claim(&db, "w", 0).await.unwrap();
        let second = claim(&db, "w", 100).await.unwrap();
        assert_eq!(jobs::renew(&db, &first, "w", Millis(900), None).await.unwrap(), Renewal::Lost);
        assert!(!finish(&db, &first, "w", End::Failed("late".to_owned()), 101).await);
        assert!(finish(&db, &second, "w", End::Succeeded, 102).await);
    }

    async fn a_job_is_retried_later_with_the_reason(db: TestDb) {
        enqueue(&db, "key", 0).await;
        let job = claim(&db, "w", 0).await.unwrap();
        assert!(jobs::retry(&db, &job, "w", Millis(50), "upstream unavailable").await.unwrap());
        assert_eq!(claim(&db, "w", 49).await, None);
        let row = &rows(&db).await[0];
        assert_eq!((row.state, row.run_at), (JobState::Queued, Millis(50)));
        assert_eq!((row.error.as_deref(), row.lease_until), (Some("upstream unavailable"), None));
        assert_eq!(claim(&db, "w", 50).await.unwrap().attempt, 2);
    }

    async fn jobs_that_have_ended_are_kept_until_they_are_deleted(db: TestDb) {
        for (round, end) in [End::Failed("no".to_owned()), End::Succeeded, End::Succeeded].into_iter().enumerate() {
            let at = i64::try_from(round).unwrap() * 10;
            assert!(enqueue(&db, "key", 0).await);
            let job = claim(&db, "w", at).await.unwrap();
            assert!(finish(&db, &job, "w", end, at).await);
        }
        let ended = rows(&db).await;
        let ends: Vec<_> = ended.iter().map(|row| (row.state, row.error.as_deref(), row.ended_at)).collect();
        assert_eq!(ends, [
            (JobState::Succeeded, None, Some(Millis(20))),
            (JobState::Succeeded, None, Some(Millis(10))),
            (JobState::Failed, Some("no"), Some(Millis(0))),
        ]);
        let counted = jobs::counts(&db).await.unwrap();
        assert_eq!(counted, [("k".to_owned(), JobState::Failed, 1), ("k".to_owned(), JobState::Succeeded, 2)]);
        assert_eq!(jobs::delete_ended(&db, Millis(20), 1).await.unwrap(), 1);
        assert_eq!(jobs::delete_ended(&db, Millis(20), 9).await.unwrap(), 1);
        assert_eq!(rows(&db).await.len(), 1);
        enqueue(&db, "key", 0).await;
        assert_eq!(jobs::delete_ended(&db, Millis(99), 9).await.unwrap(), 1, "a live one is not deleted");
    }

    async fn a_queued_job_is_cancelled_at_once_and_a_running_one_with_its_next_renewal(db: TestDb) {
        enqueue(&db, "queued", 0).await;
        let id = rows(&db).await[0].id;
        assert!(jobs::cancel(&db, id, Millis(3)).await.unwrap());
        assert!(!jobs::cancel(&db, id, Millis(4)).await.unwrap());
        let row = &rows(&db).await[0];
        assert_eq!((row.state, row.ended_at), (JobState::Cancelled, Some(Millis(3))));
        assert_eq!(claim(&db, "w", 9).await, None);

        enqueue(&db, "running", 0).await;
        let job = claim(&db, "w", 9).await.unwrap();
        enqueue(&db, "running", 0).await;
        let progress = Some(Progress { done: 2, total: 5 });
        assert_eq!(jobs::renew(&db, &job, "w", Millis(200), progress).await.unwrap(), Renewal::Renewed);
        assert!(jobs::cancel(&db, job.id, Millis(10)).await.unwrap());
        let row = &rows(&db).await[0];
        assert_eq!((row.state, row.done, row.total), (JobState::Running, Some(2), Some(5)));
        assert_eq!(jobs::renew(&db, &job, "w", Millis(300), progress).await.unwrap(), Renewal::Cancelled);
        assert!(finish(&db, &job, "w", End::Cancelled, 11).await);
        let row = &rows(&db).await[0];
        assert_eq!((row.state, row.ended_at), (JobState::Cancelled, Some(Millis(11))));
    }

    async fn a_cancelled_job_is_neither_retried_nor_released_to_the_queue(db: TestDb) {
        for key in ["retried", "released"] {
            enqueue(&db, key, 0).await;
            let job = claim(&db, "w", 0).await.unwrap();
            assert!(jobs::cancel(&db, job.id, Millis(1)).await.unwrap());
            if key == "retried" {
                assert!(jobs::retry(&db, &job, "w", Millis(0), "no").await.unwrap());
            } else {
                jobs::release_all(&db, "w").await.unwrap();
            }
            let row = &rows(&db).await[0];
            assert_eq!((row.state, row.ended_at.is_some()), (JobState::Cancelled, true), "{key}");
            assert_eq!(claim(&db, "w", 9).await, None, "{key}");
        }
    }

    async fn jobs_of_a_clock_that_was_ahead_become_due(db: TestDb) {
        use crate::schema::jobs as j;
        let (lease, delay, error) = (Duration::from_secs(60), Duration::from_secs(100), MAX_CLOCK_ERROR);
        let now = Millis(1_000_000);
        let (latest, latest_retry) = (now.after(error), now.after(error).after(delay));
        let later = Duration::from_millis(1);
        for (key, created_at, run_at, is_reset) in [
            ("queued", latest, latest, false),
            ("queued ahead", latest.after(later), latest.after(later), true),
            ("retried", Millis(1), latest_retry, false),
            ("retried ahead", Millis(1), latest_retry.after(later), true),
        ] {
            enqueue(&db, key, 0).await;
            let times = (j::created_at.eq(created_at), j::run_at.eq(run_at));
            execute!(db, diesel::update(j::table.filter(j::key.eq(key))).set(times)).unwrap();
            let reset = jobs::reset_ahead(&db, lease, delay, now).await.unwrap();
            assert_eq!(reset, usize::from(is_reset), "{key}");
            let row = rows(&db).await.remove(0);
            let expected = if is_reset { (created_at.min(now), now) } else { (created_at, run_at) };
            assert_eq!((row.created_at, row.run_at), expected, "{key}");
        }
    }

    async fn a_worker_that_ends_releases_its_jobs(db: TestDb) {
        for (key, worker) in [("a", "ends"), ("b", "continues")] {
            enqueue(&db, key, 0).await;
            claim(&db, worker, 0).await.unwrap();
        }
        jobs::release_all(&db, "ends").await.unwrap();
        assert_eq!(claim(&db, "next", 0).await.unwrap().key, "a");
        assert_eq!(claim(&db, "next", 0).await, None);
    }
}
