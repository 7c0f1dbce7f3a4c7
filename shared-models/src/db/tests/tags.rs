use super::{TestDb, check, digest, image, key, links_manifest, on_both, repository, tag};
use crate::db::{
    Db, record,
    tags::{self, TagCause},
};
use oci_types::Millis;

on_both! {
    async fn a_move_makes_exactly_one_row_of_history(db: TestDb) {
        let (first, second) = (image("1", &[]), image("2", &[]));
        for (manifest, at) in [(&first, 1), (&first, 2), (&second, 3), (&second, 4), (&first, 5)] {
            record::manifest(&db, &repository("x"), manifest, Some(&check("t", at)), Millis(at)).await.unwrap();
        }
        let history = tags::history(&db, &key("x"), &tag("t"), 10).await.unwrap();
        let steps: Vec<_> = history.iter().map(|step| (step.at, step.cause)).collect();
        let expected = [(5, TagCause::Moved), (3, TagCause::Moved), (1, TagCause::Pulled)];
        assert_eq!(steps, expected.map(|(at, cause)| (Millis(at), cause)));
        assert_eq!(history[0].from, Some(second.digest.clone()));
        assert_eq!(history[0].to, Some(first.digest.clone()));
        assert_eq!(history[2].from, None);
        let row = tags::find(&db, &key("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.manifest, row.moved_at, row.checked_at), (first.digest, Millis(5), Millis(5)));
    }

    async fn the_last_moves_of_a_tag_are_kept(db: TestDb) {
        let manifests = [image("1", &[]), image("2", &[])];
        record::manifest(&db, &repository("x"), &manifests[0], Some(&check("other", 1)), Millis(1)).await.unwrap();
        for (at, manifest) in (1..=tags::MAX_MOVES + 3).zip(manifests.iter().cycle()) {
            record::manifest(&db, &repository("x"), manifest, Some(&check("t", at)), Millis(at)).await.unwrap();
        }
        let history = tags::history(&db, &key("x"), &tag("t"), 1000).await.unwrap();
        let times: Vec<_> = history.iter().map(|step| step.at.0).collect();
        assert_eq!(times, (4..=tags::MAX_MOVES + 3).rev().collect::<Vec<_>>());
        assert_eq!(tags::history(&db, &key("x"), &tag("other"), 9).await.unwrap().len(), 1);
    }

    async fn the_same_tag_created_by_many_at_once_has_one_row_of_history(db: TestDb) {
        let image = image("1", &["a"]);
        let record = |at| {
            let (db, image) = (db.db.clone(), image.clone());
            async move { record::manifest(&db, &repository("x"), &image, Some(&check("t", at)), Millis(at)).await }
        };
        for result in futures::future::join_all((0..10).map(|at| tokio::spawn(record(at)))).await {
            result.unwrap().unwrap();
        }
        assert_eq!(tags::history(&db, &key("x"), &tag("t"), 10).await.unwrap().len(), 1);
    }

    async fn a_check_moves_only_the_time_of_the_check_and_only_forwards(db: TestDb) {
        let image = image("1", &[]);
        record::manifest(&db, &repository("x"), &image, Some(&check("t", 1)), Millis(1)).await.unwrap();
        for at in [9, 5] {
            let now = tags::mark_checked(&db, &key("x"), &check("t", at), &image.digest).await.unwrap();
            assert_eq!(now, tags::find(&db, &key("x"), &tag("t")).await.unwrap());
        }
        assert_eq!(tags::mark_checked(&db, &key("y"), &check("t", 99), &image.digest).await.unwrap(), None);
        let row = tags::find(&db, &key("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.moved_at, row.checked_at), (Millis(1), Millis(9)));
        assert_eq!(tags::find(&db, &key("y"), &tag("t")).await.unwrap(), None);
        assert_eq!(tags::find(&db, &key("x"), &tag("T")).await.unwrap(), None);
    }

    async fn a_check_of_another_manifest_confirms_nothing(db: TestDb) {
        let (old, new) = (image("1", &[]), image("2", &[]));
        record::manifest(&db, &repository("x"), &old, Some(&check("t", 1)), Millis(1)).await.unwrap();
        // The check of this process at 2 found the old manifest; the check of another process at 3
        // found the new one.
        record::manifest(&db, &repository("x"), &new, Some(&check("t", 3)), Millis(4)).await.unwrap();
        for at in [2, 9] {
            let now = tags::mark_checked(&db, &key("x"), &check("t", at), &old.digest).await.unwrap();
            assert_eq!(now.unwrap().manifest, new.digest);
        }
        let row = tags::find(&db, &key("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.manifest, row.checked_at), (new.digest, Millis(3)));
    }

    async fn a_check_that_began_earlier_never_replaces_what_a_later_one_has_seen(db: TestDb) {
        let (old, new) = (image("1", &["a"]), image("2", &[]));
        record::manifest(&db, &repository("x"), &new, Some(&check("t", 7)), Millis(8)).await.unwrap();
        let later = record::manifest(&db, &repository("x"), &old, Some(&check("t", 6)), Millis(9)).await.unwrap();
        assert_eq!(later, tags::find(&db, &key("x"), &tag("t")).await.unwrap());
        assert!(record::adopt(&db, &repository("x"), &old.digest, Some(&check("t", 5)), Millis(9)).await.unwrap().is_some());
        let row = tags::find(&db, &key("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.manifest, row.moved_at, row.checked_at), (new.digest, Millis(7), Millis(7)));
        assert_eq!(tags::history(&db, &key("x"), &tag("t"), 10).await.unwrap().len(), 1);
        // The upstream still has the manifest.
        assert!(links_manifest(&db, "x", &old.digest).await);
    }

    async fn processes_that_record_their_checks_in_any_order_agree_on_the_latest(db: TestDb) {
        // Two handles share only the database, as two processes do.
        let handles = [db.db.clone(), Db::connect(&db.config).await.unwrap()];
        let images: Vec<_> = (0..3).map(|number| image(&number.to_string(), &[])).collect();
        for image in &images {
            record::manifest(&db, &repository("x"), image, None, Millis(0)).await.unwrap();
        }
        for round in 0..8_usize {
            let tag_name = format!("t{round}");
            let observe = |step: usize| {
                // Every time from 1 to 18 once, in a different order in each round.
                let began = step * (2 * round + 1) % 19;
                let (db, manifest) = (handles[step % 2].clone(), images[began % 3].clone());
                let check = check(&tag_name, i64::try_from(began).unwrap());
                async move {
                    let repository = repository("x");
                    let store = || record::manifest(&db, &repository, &manifest, Some(&check), Millis(99));
                    match step % 3 {
                        0 => store().await.map(drop),
                        1 => record::adopt(&db, &repository, &manifest.digest, Some(&check), Millis(99)).await.map(drop),
                        _ => match tags::mark_checked(&db, &repository.repository.key(), &check, &manifest.digest).await {
                            Ok(Some(row)) if row.manifest == manifest.digest => Ok(()),
                            _ => store().await.map(drop),
                        },
                    }
                }
            };
            for done in futures::future::join_all((1..19).map(|step| tokio::spawn(observe(step)))).await {
                done.unwrap().unwrap();
            }
            let row = tags::find(&db, &key("x"), &tag(&tag_name)).await.unwrap().unwrap();
            assert_eq!((&row.manifest, row.checked_at), (&images[18 % 3].digest, Millis(18)), "round {round}");
            let history = tags::history(&db, &key("x"), &tag(&tag_name), 100).await.unwrap();
            assert_eq!(history[0].to, Some(row.manifest));
            assert!(history.windows(2).all(|pair| pair[0].at >= pair[1].at && pair[0].from == pair[1].to), "{history:?}");
        }
    }

    async fn tags_are_listed_in_byte_order_of_their_repository_only(db: TestDb) {
        let sorted = ["1.0", "10", "A", "_x", "a", "a-b", "a.b", "b"];
        for text in sorted.iter().rev() {
            record::manifest(&db, &repository("x"), &image("1", &[]), Some(&check(text, 1)), Millis(1)).await.unwrap();
        }
        record::manifest(&db, &repository("y"), &image("1", &[]), Some(&check("other", 1)), Millis(1)).await.unwrap();
        assert_eq!(tags::list(&db, &key("x"), None, 100).await.unwrap(), sorted.map(tag));
        assert_eq!(tags::list(&db, &key("x"), Some(&tag("A")), 2).await.unwrap(), [tag("_x"), tag("a")]);
        // The tag to start after need not exist.
        assert_eq!(tags::list(&db, &key("x"), Some(&tag("a-c")), 1).await.unwrap(), [tag("a.b")]);
        assert!(tags::list(&db, &key("nobody"), None, 5).await.unwrap().is_empty());
    }

    async fn a_tag_cannot_be_recorded_for_bytes_that_are_not_here(db: TestDb) {
        let adopted = record::adopt(&db, &repository("x"), &digest("no"), Some(&check("t", 1)), Millis(1)).await;
        assert_eq!(adopted.unwrap(), None);
        assert_eq!(tags::find(&db, &key("x"), &tag("t")).await.unwrap(), None);
    }
}
