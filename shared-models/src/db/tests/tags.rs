use super::{TestDb, digest, image, name, on_both, repository, tag};
use crate::{
    Millis,
    db::{
        record,
        tags::{self, TagCause},
    },
};

on_both! {
    async fn a_move_makes_exactly_one_row_of_history(db: TestDb) {
        let (first, second) = (image("1", &[]), image("2", &[]));
        for (manifest, at) in [(&first, 1), (&first, 2), (&second, 3), (&second, 4), (&first, 5)] {
            record::manifest(&db, &repository("x"), manifest, Some(&tag("t")), Millis(at)).await.unwrap();
        }
        let history = tags::history(&db, &name("x"), &tag("t"), 10).await.unwrap();
        let steps: Vec<_> = history.iter().map(|step| (step.at, step.cause)).collect();
        let expected = [(5, TagCause::Moved), (3, TagCause::Moved), (1, TagCause::Pulled)];
        assert_eq!(steps, expected.map(|(at, cause)| (Millis(at), cause)));
        assert_eq!(history[0].from, Some(second.digest.clone()));
        assert_eq!(history[0].to, Some(first.digest.clone()));
        assert_eq!(history[2].from, None);
        let row = tags::find(&db, &name("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.manifest, row.moved_at, row.checked_at), (first.digest, Millis(5), Millis(5)));
    }

    async fn the_same_tag_created_by_many_at_once_has_one_row_of_history(db: TestDb) {
        let image = image("1", &["a"]);
        let record = |at| {
            let (db, image) = (db.db.clone(), image.clone());
            async move { record::manifest(&db, &repository("x"), &image, Some(&tag("t")), Millis(at)).await }
        };
        for result in futures::future::join_all((0..10).map(|at| tokio::spawn(record(at)))).await {
            result.unwrap().unwrap();
        }
        assert_eq!(tags::history(&db, &name("x"), &tag("t"), 10).await.unwrap().len(), 1);
    }

    async fn a_check_moves_only_the_time_of_the_check_and_only_forwards(db: TestDb) {
        record::manifest(&db, &repository("x"), &image("1", &[]), Some(&tag("t")), Millis(1)).await.unwrap();
        for at in [9, 5] {
            tags::mark_checked(&db, &name("x"), &tag("t"), Millis(at)).await.unwrap();
        }
        tags::mark_checked(&db, &name("y"), &tag("t"), Millis(99)).await.unwrap();
        let row = tags::find(&db, &name("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.moved_at, row.checked_at), (Millis(1), Millis(9)));
        assert_eq!(tags::find(&db, &name("y"), &tag("t")).await.unwrap(), None);
        assert_eq!(tags::find(&db, &name("x"), &tag("T")).await.unwrap(), None);
    }

    async fn tags_are_listed_in_byte_order_of_their_repository_only(db: TestDb) {
        let sorted = ["1.0", "10", "A", "_x", "a", "a-b", "a.b", "b"];
        for text in sorted.iter().rev() {
            record::manifest(&db, &repository("x"), &image("1", &[]), Some(&tag(text)), Millis(1)).await.unwrap();
        }
        record::manifest(&db, &repository("y"), &image("1", &[]), Some(&tag("other")), Millis(1)).await.unwrap();
        assert_eq!(tags::list(&db, &name("x"), None, 100).await.unwrap(), sorted.map(tag));
        assert_eq!(tags::list(&db, &name("x"), Some(&tag("A")), 2).await.unwrap(), [tag("_x"), tag("a")]);
        // What is named need not exist.
        assert_eq!(tags::list(&db, &name("x"), Some(&tag("a-c")), 1).await.unwrap(), [tag("a.b")]);
        assert!(tags::list(&db, &name("nobody"), None, 5).await.unwrap().is_empty());
    }

    async fn a_tag_cannot_be_recorded_for_bytes_that_are_not_here(db: TestDb) {
        let adopted = record::adopt(&db, &repository("x"), &digest("no"), Some(&tag("t")), Millis(1)).await;
        assert!(!adopted.unwrap());
        assert_eq!(tags::find(&db, &name("x"), &tag("t")).await.unwrap(), None);
    }
}
