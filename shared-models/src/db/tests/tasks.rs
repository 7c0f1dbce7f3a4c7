use std::{collections::HashSet, time::Duration};

use super::{TestDb, on_both};
use crate::db::tasks::{self, TaskState};
use oci_types::Millis;

const LEASE: Duration = Duration::from_millis(100);

on_both! {
    async fn a_key_has_one_live_task(db: TestDb) {
        assert!(tasks::enqueue(&db, "complete", "k", "{}", Millis(1)).await.unwrap());
        assert!(!tasks::enqueue(&db, "complete", "k", "{}", Millis(1)).await.unwrap());
        assert!(tasks::enqueue(&db, "other", "k", "{}", Millis(1)).await.unwrap());
        let task = tasks::claim(&db, "w", LEASE, Millis(1)).await.unwrap().unwrap();
        assert!(!tasks::enqueue(&db, &task.kind, "k", "{}", Millis(1)).await.unwrap(), "running is live too");
        assert!(tasks::finish(&db, task.id, "w").await.unwrap());
        assert!(tasks::enqueue(&db, &task.kind, "k", "{}", Millis(1)).await.unwrap());
        assert_eq!(tasks::list(&db, 10).await.unwrap().len(), 2);
    }

    async fn tasks_are_claimed_when_due_and_the_longest_due_first(db: TestDb) {
        for (key, at) in [("late", 30), ("early", 10), ("middle", 20)] {
            tasks::enqueue(&db, "k", key, r#"{"a":1}"#, Millis(at)).await.unwrap();
        }
        assert_eq!(tasks::claim(&db, "w", LEASE, Millis(9)).await.unwrap(), None);
        let first = tasks::claim(&db, "w", LEASE, Millis(20)).await.unwrap().unwrap();
        assert_eq!((first.key.as_str(), first.payload.as_str(), first.attempts), ("early", r#"{"a":1}"#, 1));
        assert_eq!(tasks::claim(&db, "w", LEASE, Millis(20)).await.unwrap().unwrap().key, "middle");
        assert_eq!(tasks::claim(&db, "w", LEASE, Millis(20)).await.unwrap(), None);
    }

    async fn no_two_workers_get_the_same_task(db: TestDb) {
        for number in 0..30 {
            tasks::enqueue(&db, "k", &number.to_string(), "{}", Millis(1)).await.unwrap();
        }
        let work = |worker: usize| {
            let db = db.db.clone();
            async move {
                let mut keys = Vec::new();
                while let Some(task) = tasks::claim(&db, &worker.to_string(), LEASE, Millis(1)).await.unwrap() {
                    keys.push(task.key);
                }
                keys
            }
        };
        let claimed = futures::future::join_all((0..6).map(|worker| tokio::spawn(work(worker)))).await;
        let claimed: Vec<String> = claimed.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(claimed.len(), 30);
        assert_eq!(claimed.into_iter().collect::<HashSet<_>>().len(), 30);
    }

    async fn a_task_whose_lease_ended_goes_to_another_worker(db: TestDb) {
        tasks::enqueue(&db, "k", "key", "{}", Millis(0)).await.unwrap();
        let task = tasks::claim(&db, "dead", LEASE, Millis(0)).await.unwrap().unwrap();
        assert!(tasks::renew(&db, task.id, "dead", Millis(200)).await.unwrap());
        assert_eq!(tasks::claim(&db, "next", LEASE, Millis(199)).await.unwrap(), None);
        let again = tasks::claim(&db, "next", LEASE, Millis(200)).await.unwrap().unwrap();
        assert_eq!((again.id, again.attempts), (task.id, 2));
        // Whoever comes back has lost it.
        assert!(!tasks::renew(&db, task.id, "dead", Millis(900)).await.unwrap());
        assert!(!tasks::finish(&db, task.id, "dead").await.unwrap());
        assert!(!tasks::retry(&db, task.id, "dead", Millis(1), "x").await.unwrap());
        assert!(!tasks::fail(&db, task.id, "dead", "x").await.unwrap());
        assert!(tasks::finish(&db, task.id, "next").await.unwrap());
    }

    async fn a_task_is_tried_again_later_and_says_why(db: TestDb) {
        tasks::enqueue(&db, "k", "key", "{}", Millis(0)).await.unwrap();
        let task = tasks::claim(&db, "w", LEASE, Millis(0)).await.unwrap().unwrap();
        assert!(tasks::retry(&db, task.id, "w", Millis(50), "upstream is away").await.unwrap());
        assert_eq!(tasks::claim(&db, "w", LEASE, Millis(49)).await.unwrap(), None);
        let row = &tasks::list(&db, 10).await.unwrap()[0];
        assert_eq!((row.state, row.run_at), (TaskState::Queued, Millis(50)));
        assert_eq!((row.error.as_deref(), row.lease_until), (Some("upstream is away"), None));
        assert_eq!(tasks::claim(&db, "w", LEASE, Millis(50)).await.unwrap().unwrap().attempts, 2);
    }

    async fn a_failed_task_is_kept_and_frees_its_key(db: TestDb) {
        for round in 0..2 {
            assert!(tasks::enqueue(&db, "k", "key", "{}", Millis(0)).await.unwrap());
            let task = tasks::claim(&db, "w", LEASE, Millis(0)).await.unwrap().unwrap();
            assert!(tasks::fail(&db, task.id, "w", &format!("round {round}")).await.unwrap());
        }
        assert!(tasks::enqueue(&db, "k", "key", "{}", Millis(0)).await.unwrap());
        let counts = tasks::counts(&db).await.unwrap();
        let expected = [("k".to_owned(), TaskState::Queued, 1), ("k".to_owned(), TaskState::Failed, 1)];
        assert_eq!(counts, expected);
        let failed = tasks::list(&db, 10).await.unwrap().pop().unwrap();
        assert_eq!(failed.error.as_deref(), Some("round 1"), "the last failure is the one kept");
    }

    async fn a_worker_that_ends_gives_back_what_it_has(db: TestDb) {
        for (key, worker) in [("a", "ends"), ("b", "goes on")] {
            tasks::enqueue(&db, "k", key, "{}", Millis(0)).await.unwrap();
            tasks::claim(&db, worker, LEASE, Millis(0)).await.unwrap().unwrap();
        }
        tasks::release_all(&db, "ends").await.unwrap();
        assert_eq!(tasks::claim(&db, "next", LEASE, Millis(0)).await.unwrap().unwrap().key, "a");
        assert_eq!(tasks::claim(&db, "next", LEASE, Millis(0)).await.unwrap(), None);
    }
}
