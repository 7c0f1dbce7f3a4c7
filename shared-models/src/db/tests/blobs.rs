use super::{TestDb, digest, image, key, linked_blob, name, of, on_both, repository};
use crate::db::{
    blobs::{self, BlobState, NewPending},
    links, record,
    repositories::NewRepository,
};
use oci_types::Millis;

fn pending(repository_name: &str, blob: &str, now: i64) -> NewPending {
    NewPending {
        repository: repository(repository_name),
        digest: digest(blob),
        size: Some(5),
        now: Millis(now),
    }
}

on_both! {
    async fn a_blob_is_stored_and_evicted_and_keeps_its_links(db: TestDb) {
        record::manifest(&db, &repository("x"), &image("config", &["a"]), None, Millis(1)).await.unwrap();
        for _ in 0..2 {
            blobs::mark_stored(&db, &digest("a"), 777, Millis(2)).await.unwrap();
        }
        let stored = linked_blob(&db, "x", &digest("a")).await.unwrap();
        assert_eq!((stored.state, stored.size), (BlobState::Stored, Some(777)), "what was received counts");

        // Another manifest that names the blob changes neither its state nor its size.
        record::manifest(&db, &repository("y"), &image("other", &["a"]), None, Millis(3)).await.unwrap();
        assert_eq!(blobs::find(&db, &digest("a")).await.unwrap().unwrap(), stored);

        blobs::mark_evicted(&db, &digest("a")).await.unwrap();
        let evicted = linked_blob(&db, "x", &digest("a")).await.unwrap();
        assert_eq!((evicted.state, evicted.size), (BlobState::OnDemand, Some(777)));
        assert_eq!(blobs::sources(&db, &digest("a"), None, Millis(1)).await.unwrap().len(), 2);
    }

    async fn a_size_that_sources_dispute_is_unknown_until_the_bytes_are_received(db: TestDb) {
        let size = async || blobs::find(&db, &digest("a")).await.unwrap().unwrap().size;
        let state = async |repository: &str, size| {
            blobs::record_pending(&db, &NewPending { size, ..pending(repository, "a", 1) }).await.unwrap();
        };
        for (repository, stated, known) in [
            ("v", None, None),
            ("w", Some(1), Some(1)),
            ("x", None, Some(1)),
            ("x", Some(1), Some(1)),
            ("y", Some(5), None),
            ("z", Some(1), None),
            ("y", Some(1), Some(1)),
            ("y", Some(5), None),
        ] {
            state(repository, stated).await;
            assert_eq!(size().await, known, "{repository} states {stated:?}");
        }
        // Through a repository, the blob has the size that the upstream of the repository states.
        for (repository, stated) in [("v", None), ("w", Some(1)), ("y", Some(5))] {
            assert_eq!(linked_blob(&db, repository, &digest("a")).await.unwrap().size, stated, "{repository}");
        }
        // The size that a source has stated is cleared when the source fails.
        blobs::demote_source(&db, &digest("a"), "hub", &name("y"), Millis(9)).await.unwrap();
        assert_eq!(size().await, Some(1));
        blobs::mark_stored(&db, &digest("a"), 5, Millis(2)).await.unwrap();
        state("u", Some(1)).await;
        assert_eq!(size().await, Some(5));
        assert_eq!(linked_blob(&db, "w", &digest("a")).await.unwrap().size, Some(5));
    }

    async fn a_blob_that_nobody_recorded_can_be_stored(db: TestDb) {
        blobs::mark_stored(&db, &digest("a"), 3, Millis(2)).await.unwrap();
        assert_eq!(blobs::find(&db, &digest("a")).await.unwrap().unwrap().state, BlobState::Stored);
        assert_eq!(links::blob(&db, &key("x"), &digest("a")).await.unwrap(), None);
    }

    async fn demoted_sources_come_last_until_their_demotion_ends(db: TestDb) {
        for upstream in ["a", "b", "c"] {
            let repository = NewRepository { repository: of(upstream, "library/alpine"), ..repository(upstream) };
            let new = NewPending { repository, ..pending("x", "blob", 1) };
            blobs::record_pending(&db, &new).await.unwrap();
        }
        let alpine = name("library/alpine");
        blobs::demote_source(&db, &digest("blob"), "a", &alpine, Millis(200)).await.unwrap();
        blobs::demote_source(&db, &digest("blob"), "b", &alpine, Millis(100)).await.unwrap();
        blobs::demote_source(&db, &digest("other"), "c", &alpine, Millis(100)).await.unwrap();
        for (now, expected) in [(99, ["c", "b", "a"]), (100, ["b", "c", "a"]), (200, ["a", "b", "c"])] {
            let sources = blobs::sources(&db, &digest("blob"), None, Millis(now)).await.unwrap();
            let order: Vec<_> = sources.iter().map(|source| source.upstream.as_str()).collect();
            assert_eq!(order, expected, "{now}");
        }
    }

    async fn only_pending_links_that_nobody_touched_expire(db: TestDb) {
        for (blob, at) in [("old", 10), ("asked again", 10), ("read", 10), ("new", 50), ("named", 10)] {
            blobs::record_pending(&db, &pending("x", blob, at)).await.unwrap();
        }
        blobs::record_pending(&db, &pending("x", "asked again", 50)).await.unwrap();
        blobs::touch_read(&db, vec![(digest("read"), Millis(50)), (digest("nowhere"), Millis(50))]).await.unwrap();
        record::manifest(&db, &repository("x"), &image("config", &["named"]), None, Millis(10)).await.unwrap();

        assert_eq!(blobs::expire_pending(&db, Millis(50)).await.unwrap(), 1);
        for (blob, left) in [("old", false), ("asked again", true), ("read", true), ("new", true), ("named", true)] {
            let linked = linked_blob(&db, "x", &digest(blob)).await;
            assert_eq!(linked.is_some(), left, "{blob}");
        }
        assert!(blobs::find(&db, &digest("old")).await.unwrap().is_some(), "the blob itself stays known");
    }

    async fn asking_for_a_named_blob_again_does_not_make_it_pending(db: TestDb) {
        record::manifest(&db, &repository("x"), &image("config", &["a"]), None, Millis(1)).await.unwrap();
        blobs::record_pending(&db, &pending("x", "a", 2)).await.unwrap();
        assert_eq!(blobs::expire_pending(&db, Millis(1000)).await.unwrap(), 0);
    }

    async fn a_pending_blob_is_readable_in_its_repository_only(db: TestDb) {
        blobs::record_pending(&db, &pending("x", "a", 1)).await.unwrap();
        blobs::record_pending(&db, &pending("y", "b", 1)).await.unwrap();
        assert!(linked_blob(&db, "x", &digest("a")).await.is_some());
        assert_eq!(linked_blob(&db, "y", &digest("a")).await, None);
    }
}
