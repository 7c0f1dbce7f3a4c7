//! State that nodes share through the database.

use std::time::Duration;

use super::{TestDb, digest, on_both};
use crate::db::{
    Db, DbError, fills,
    nodes::{self, NodeRow},
    platforms,
    upstream_states::{self, UpstreamStateRow},
};
use oci_types::Millis;

fn node(id: &str, heartbeat_at: i64, draining: bool) -> NodeRow {
    NodeRow {
        id: id.to_owned(),
        public_url: format!("http://{id}:8080"),
        internal_url: format!("http://{id}:8081"),
        heartbeat_at: Millis(heartbeat_at),
        draining,
    }
}

/// The nodes that are alive at 15 with a heartbeat since `since`.
async fn live(db: &Db, since: u64) -> Result<Vec<NodeRow>, DbError> {
    nodes::live(db, Duration::from_millis(15 - since), Millis(15)).await
}

on_both! {
    async fn live_nodes_are_those_heard_of_that_take_work(db: TestDb) {
        for row in [node("b", 10, false), node("a", 5, false), node("old", 4, false), node("drains", 10, true)] {
            nodes::heartbeat(&db, &row).await.unwrap();
        }
        assert_eq!(live(&db, 5).await.unwrap(), [node("a", 5, false), node("b", 10, false)]);
        nodes::heartbeat(&db, &node("a", 11, true)).await.unwrap();
        assert_eq!(live(&db, 5).await.unwrap(), [node("b", 10, false)]);
        nodes::remove(&db, "b").await.unwrap();
        assert!(live(&db, 0).await.unwrap().iter().all(|node| node.id == "old"));
        let alive = || vec!["old".to_owned()];
        assert_eq!(nodes::remove_dead(&db, Millis(5), alive()).await.unwrap(), 0);
        assert_eq!(nodes::remove_dead(&db, Millis(5), Vec::new()).await.unwrap(), 1);
        assert!(live(&db, 0).await.unwrap().is_empty());
    }

    async fn a_fill_is_leased_to_one_node_at_a_time(db: TestDb) {
        let blob = digest("blob");
        assert!(fills::claim(&db, &blob, "a", Millis(100), Millis(0)).await.unwrap());
        assert!(!fills::claim(&db, &blob, "b", Millis(100), Millis(50)).await.unwrap());
        assert!(fills::claim(&db, &blob, "a", Millis(120), Millis(50)).await.unwrap(), "its own again");
        assert!(fills::renew(&db, &blob, "a", Millis(200), 4096).await.unwrap());
        assert!(!fills::renew(&db, &blob, "b", Millis(900), 1).await.unwrap());
        let holder = fills::holder(&db, &blob, Millis(199)).await.unwrap().unwrap();
        assert_eq!((holder.node_id.as_str(), holder.lease_until, holder.offset), ("a", Millis(200), 4096));
        assert_eq!(fills::holder(&db, &blob, Millis(200)).await.unwrap(), None);

        assert!(fills::claim(&db, &blob, "b", Millis(400), Millis(200)).await.unwrap(), "the lease has ended");
        assert!(!fills::renew(&db, &blob, "a", Millis(900), 1).await.unwrap());
        fills::release(&db, &blob, "a").await.unwrap();
        assert!(fills::holder(&db, &blob, Millis(300)).await.unwrap().is_some(), "it was not a's to release");
        fills::release(&db, &blob, "b").await.unwrap();
        assert_eq!(fills::holder(&db, &blob, Millis(300)).await.unwrap(), None);

        assert!(fills::claim(&db, &blob, "a", Millis(100), Millis(0)).await.unwrap());
        assert_eq!(fills::remove_expired(&db, Millis(100)).await.unwrap(), 0);
        assert_eq!(fills::remove_expired(&db, Millis(101)).await.unwrap(), 1, "what nobody gave back goes");
    }

    async fn of_many_nodes_that_claim_at_once_one_gets_the_fill(db: TestDb) {
        let claim = |node: usize| {
            let db = db.db.clone();
            async move { fills::claim(&db, &digest("x"), &node.to_string(), Millis(100), Millis(0)).await.unwrap() }
        };
        let claims = futures::future::join_all((0..10).map(|node| tokio::spawn(claim(node)))).await;
        assert_eq!(claims.into_iter().filter(|claimed| *claimed.as_ref().unwrap()).count(), 1);
    }

    async fn the_state_of_an_upstream_is_the_one_seen_last(db: TestDb) {
        let first = UpstreamStateRow {
            name: "hub".to_owned(),
            observed_at: Millis(10),
            circuit_open_until: Some(Millis(1)),
            retry_at: Some(Millis(2)),
            limit: Some(100),
            remaining: Some(3),
            reset_at: Some(Millis(4)),
        };
        let second = UpstreamStateRow {
            observed_at: Millis(11), circuit_open_until: None, remaining: Some(0), ..first.clone()
        };
        let other = UpstreamStateRow { name: "quay".to_owned(), retry_at: None, limit: None, ..first.clone() };
        for (state, written) in [(&first, true), (&other, true), (&second, true), (&first, false), (&second, true)] {
            assert_eq!(upstream_states::save(&db, state).await.unwrap(), written, "{state:?}");
        }
        assert_eq!(upstream_states::load_all(&db).await.unwrap(), [second, other]);
    }

    async fn however_many_save_the_state_of_an_upstream_at_once_the_latest_stays(db: TestDb) {
        let save = |number: i64| {
            let db = db.db.clone();
            let state = UpstreamStateRow {
                name: "hub".to_owned(),
                observed_at: Millis(number),
                circuit_open_until: None,
                retry_at: None,
                limit: None,
                remaining: Some(number),
                reset_at: None,
            };
            async move { upstream_states::save(&db, &state).await.unwrap() }
        };
        // 37 and 40 have no common factor: the numbers from 0 to 39, out of order.
        futures::future::join_all((0..40).map(|step| tokio::spawn(save(step * 37 % 40)))).await;
        let states = upstream_states::load_all(&db).await.unwrap();
        assert_eq!(states.iter().map(|state| state.remaining).collect::<Vec<_>>(), [Some(39)]);
    }

    async fn platforms_are_noted_for_their_namespace_and_the_last_comes_first(db: TestDb) {
        let [amd, arm] = ["linux/amd64", "linux/arm64/v8"].map(|text| text.parse().unwrap());
        for (namespace, platform, at) in
            [("docker.io", &amd, 1), ("docker.io", &arm, 2), ("docker.io", &amd, 3), ("quay.io", &arm, 4)]
        {
            platforms::touch(&db, namespace, platform, Millis(at)).await.unwrap();
        }
        assert_eq!(platforms::list(&db, "docker.io").await.unwrap(), [amd, arm]);
        assert!(platforms::list(&db, "").await.unwrap().is_empty());
    }
}
