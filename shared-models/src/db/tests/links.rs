use super::{TestDb, digest, image, index, key, of, on_both, repository};
use crate::db::{
    blobs::{self, NewPending},
    links::{self, Proof},
    record,
    repositories::{NewRepository, RepositoryKey},
};
use oci_types::Millis;

const OWN: Proof = Proof::Claimed { from_other_upstream: false };
const OTHER: Proof = Proof::Claimed { from_other_upstream: true };

fn at_quay(text: &str) -> NewRepository {
    NewRepository { repository: of("quay", text), ..repository(text) }
}

/// The key of the repository `z` is that of [`at_quay`], the others are those of [`repository`].
fn key_of(text: &str) -> RepositoryKey {
    if text == "z" { of("quay", text).key() } else { key(text) }
}

on_both! {
    async fn a_manifest_claims_its_blobs_and_a_confirmation_proves_one(db: TestDb) {
        let proof = async |repository, blob| {
            links::blob(&db, &key_of(repository), &digest(blob)).await.unwrap().map(|linked| linked.proof)
        };
        record::manifest(&db, &repository("x"), &image("config", &["a"]), None, Millis(1)).await.unwrap();
        assert_eq!(proof("x", "a").await, Some(OWN));
        assert_eq!((proof("y", "a").await, proof("x", "b").await), (None, None));

        // Another repository of the same upstream changes nothing; one of another upstream does.
        record::manifest(&db, &repository("y"), &image("other", &["a"]), None, Millis(1)).await.unwrap();
        assert_eq!((proof("x", "a").await, proof("y", "a").await), (Some(OWN), Some(OWN)));
        record::manifest(&db, &at_quay("z"), &image("third", &["a"]), None, Millis(1)).await.unwrap();
        assert_eq!((proof("x", "a").await, proof("z", "a").await), (Some(OTHER), Some(OTHER)));

        let pending = NewPending { repository: repository("x"), digest: digest("a"), size: None, now: Millis(2) };
        blobs::record_pending(&db, &pending).await.unwrap();
        assert_eq!((proof("x", "a").await, proof("z", "a").await), (Some(Proof::Confirmed), Some(OTHER)));
        // Neither another manifest that names the blob nor the expiry of pending links reverts
        // that.
        record::manifest(&db, &repository("x"), &image("fourth", &["a"]), None, Millis(3)).await.unwrap();
        blobs::expire_pending(&db, Millis(99)).await.unwrap();
        assert_eq!(proof("x", "a").await, Some(Proof::Confirmed));
    }

    async fn an_index_claims_its_children_until_their_upstream_confirms_them(db: TestDb) {
        let child = image("config", &["a"]);
        let proof = async |repository| {
            links::manifest(&db, &key_of(repository), &child.digest, false).await.unwrap().proof
        };
        record::manifest(&db, &repository("x"), &index(&[&child.digest]), None, Millis(1)).await.unwrap();
        assert_eq!((proof("x").await, proof("y").await), (Some(OTHER), None));
        // The bytes come from another upstream.
        record::manifest(&db, &at_quay("z"), &child, None, Millis(1)).await.unwrap();
        assert_eq!((proof("z").await, proof("x").await), (Some(Proof::Confirmed), Some(OTHER)));
        // Its own upstream has them, in another repository.
        record::manifest(&db, &repository("y"), &child, None, Millis(1)).await.unwrap();
        assert_eq!(proof("x").await, Some(OWN));
        record::adopt(&db, &repository("x"), &child.digest, None, Millis(1)).await.unwrap();
        assert_eq!(proof("x").await, Some(Proof::Confirmed));
        record::manifest(&db, &repository("x"), &index(&[&child.digest]), None, Millis(2)).await.unwrap();
        assert_eq!(proof("x").await, Some(Proof::Confirmed));
    }

    async fn the_bytes_of_a_manifest_come_with_its_link_on_request(db: TestDb) {
        let image = image("config", &["a"]);
        record::manifest(&db, &repository("x"), &image, None, Millis(1)).await.unwrap();
        for (repository, proof) in [("x", Some(Proof::Confirmed)), ("y", None)] {
            let lookup = links::manifest(&db, &key_of(repository), &image.digest, true).await.unwrap();
            assert_eq!((lookup.proof, lookup.stored.unwrap().body), (proof, image.body.clone()));
            assert_eq!(links::manifest(&db, &key_of(repository), &image.digest, false).await.unwrap().stored, None);
        }
    }
}
