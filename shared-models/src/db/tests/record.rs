use bytes::Bytes;

use super::{
    TestDb, check, descriptors, digest, image, index, key, linked_blob, links_manifest, manifest, name, of,
    on_both, plans::Statements, repository, tag,
};
use crate::db::{
    blobs::{self, BlobState, NewPending},
    links, manifests, record,
    repositories::{self, NewRepository, Repository},
    tags,
};
use oci_types::{
    Millis,
    manifest::{DescriptorRole, Platform},
};

on_both! {
    async fn recording_a_manifest_makes_it_and_its_blobs_readable(db: TestDb) {
        let image = image("config", &["a", "b", "a"]);
        record::manifest(&db, &repository("x/alpine"), &image, Some(&check("3", 7)), Millis(7)).await.unwrap();

        let stored = manifests::load(&db, &image.digest).await.unwrap().unwrap();
        assert_eq!(stored.body, image.body);
        assert_eq!(stored.media_type, image.parsed.media_type);
        assert!(links_manifest(&db, "x/alpine", &image.digest).await);
        assert_eq!(descriptors(&db, &image.digest).await, image.parsed.descriptors);

        let layer = linked_blob(&db, "x/alpine", &digest("a")).await.unwrap();
        assert_eq!((layer.state, layer.size), (BlobState::OnDemand, Some(1000)));
        let sources = blobs::sources(&db, &digest("config"), None, Millis(1)).await.unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!((sources[0].upstream.as_str(), &sources[0].upstream_name), ("hub", &name("x/alpine")));

        let row = tags::find(&db, &key("x/alpine"), &tag("3")).await.unwrap().unwrap();
        assert_eq!((row.manifest, row.moved_at, row.checked_at), (image.digest, Millis(7), Millis(7)));
    }

    async fn what_is_linked_in_one_repository_is_not_readable_in_another(db: TestDb) {
        let image = image("config", &["a"]);
        record::manifest(&db, &repository("one"), &image, None, Millis(1)).await.unwrap();
        record::manifest(&db, &repository("two"), &super::image("other", &[]), None, Millis(1)).await.unwrap();

        assert!(!links_manifest(&db, "two", &image.digest).await);
        assert_eq!(linked_blob(&db, "two", &digest("a")).await, None);
        assert!(manifests::stored(&db, &image.digest).await.unwrap());
        assert!(blobs::find(&db, &digest("a")).await.unwrap().is_some());
    }

    async fn recording_twice_changes_nothing(db: TestDb) {
        let image = image("config", &["a"]);
        for at in 1..3 {
            record::manifest(&db, &repository("x"), &image, Some(&check("t", at)), Millis(at)).await.unwrap();
        }
        assert_eq!(descriptors(&db, &image.digest).await.len(), 2);
        assert_eq!(tags::history(&db, &key("x"), &tag("t"), 10).await.unwrap().len(), 1);
        let row = tags::find(&db, &key("x"), &tag("t")).await.unwrap().unwrap();
        assert_eq!((row.moved_at, row.checked_at), (Millis(1), Millis(2)));
    }

    async fn the_children_of_a_recorded_index_are_linked_before_their_bytes_are_here(db: TestDb) {
        let child = image("config", &["a"]);
        let index = index(&[&child.digest, &digest("elsewhere")]);
        record::manifest(&db, &repository("x"), &index, None, Millis(1)).await.unwrap();

        assert!(links_manifest(&db, "x", &child.digest).await);
        assert!(!manifests::stored(&db, &child.digest).await.unwrap());
        assert_eq!(blobs::find(&db, &child.digest).await.unwrap(), None, "a manifest is no blob");
        let items = descriptors(&db, &index.digest).await;
        assert!(items.iter().all(|item| item.role == DescriptorRole::Manifest));
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(items[0].platform, Some(arm));
    }

    async fn an_index_links_the_blobs_of_children_that_came_before_through_another_repository(db: TestDb) {
        let child = image("config", &["a"]);
        record::manifest(&db, &repository("first"), &child, None, Millis(1)).await.unwrap();
        let inner = index(&[&child.digest]);
        record::manifest(&db, &repository("second"), &inner, None, Millis(1)).await.unwrap();
        let outer = index(&[&inner.digest]);
        record::manifest(&db, &repository("third"), &outer, None, Millis(1)).await.unwrap();
        for repository in ["second", "third"] {
            assert!(links_manifest(&db, repository, &child.digest).await, "{repository}");
            assert!(linked_blob(&db, repository, &digest("a")).await.is_some(), "{repository}");
        }
    }

    async fn a_pending_blob_becomes_an_ordinary_one_with_a_manifest_that_names_it(db: TestDb) {
        let pending = |text| NewPending {
            repository: repository("x"), digest: digest(text), size: None, now: Millis(1),
        };
        blobs::record_pending(&db, &pending("a")).await.unwrap();
        blobs::record_pending(&db, &pending("b")).await.unwrap();
        assert_eq!(linked_blob(&db, "x", &digest("a")).await.unwrap().size, None);

        record::manifest(&db, &repository("x"), &image("config", &["a"]), None, Millis(1)).await.unwrap();
        assert_eq!(blobs::expire_pending(&db, Millis(1000)).await.unwrap(), 1);
        let named = linked_blob(&db, "x", &digest("a")).await.unwrap();
        assert_eq!(named.size, Some(1000), "the manifest told it");
        assert_eq!(linked_blob(&db, "x", &digest("b")).await, None);
    }

    async fn adopting_links_what_is_here_and_refuses_what_is_not(db: TestDb) {
        let (known, missing) = (image("config", &["a"]), image("config", &["b"]));
        record::manifest(&db, &repository("first"), &known, None, Millis(1)).await.unwrap();
        let second = NewRepository { repository: of("quay", "second"), ..repository("second") };

        assert_eq!(record::adopt(&db, &second, &missing.digest, Some(&check("t", 2)), Millis(2)).await.unwrap(), None);
        assert_eq!(repositories::catalog(&db, None, 9).await.unwrap(), [name("first")], "nothing was recorded");

        assert!(record::adopt(&db, &second, &known.digest, Some(&check("t", 2)), Millis(2)).await.unwrap().is_some());
        let second = second.repository.key();
        assert!(links::manifest(&db, &second, &known.digest, false).await.unwrap().proof.is_some());
        assert!(links::blob(&db, &second, &digest("a")).await.unwrap().is_some());
        assert_eq!(tags::find(&db, &second, &tag("t")).await.unwrap().unwrap().manifest, known.digest);
        let sources = blobs::sources(&db, &digest("a"), None, Millis(1)).await.unwrap();
        assert_eq!(sources.iter().map(|source| source.upstream.as_str()).collect::<Vec<_>>(), ["hub", "quay"]);
    }

    async fn foreign_layers_are_kept_as_items_but_are_no_blobs(db: TestDb) {
        let foreign = digest("windows");
        let image = manifest(&format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":1}},"layers":[{{
                "mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{foreign}","size":9
            }}]}}"#,
            digest("config"),
        ));
        record::manifest(&db, &repository("x"), &image, None, Millis(1)).await.unwrap();
        assert_eq!(descriptors(&db, &image.digest).await[1].digest, foreign);
        assert_eq!(blobs::find(&db, &foreign).await.unwrap(), None);
    }

    async fn many_that_record_overlapping_images_at_once_all_succeed(db: TestDb) {
        let layers: Vec<String> = (0..40).map(|number| format!("layer {number}")).collect();
        let record = |number: usize| {
            let (db, layers) = (db.db.clone(), layers.clone());
            async move {
                let mut layers: Vec<&str> = layers.iter().map(String::as_str).collect();
                layers.rotate_left(number * 3);
                let image = image(&format!("config {number}"), &layers);
                let at = Millis(i64::try_from(number).unwrap());
                record::manifest(&db, &repository("x"), &image, Some(&check("latest", 1)), at).await
            }
        };
        futures::future::try_join_all((0..12).map(|number| tokio::spawn(record(number))))
            .await
            .unwrap()
            .into_iter()
            .for_each(|result| drop(result.unwrap()));
        // Every move begins at the manifest at which the previous move ended.
        let history = tags::history(&db, &key("x"), &tag("latest"), 100).await.unwrap();
        assert_eq!(history.len(), 12);
        assert_eq!(history.last().unwrap().from, None);
        let mut ends: Vec<_> = history.iter().map(|step| step.to.clone()).collect();
        let mut starts: Vec<_> = history.iter().map(|step| step.from.clone()).collect();
        let current = tags::find(&db, &key("x"), &tag("latest")).await.unwrap().unwrap().manifest;
        ends.retain(|end| *end != Some(current.clone()));
        starts.retain(Option::is_some);
        ends.sort();
        starts.sort();
        assert_eq!(starts, ends);
    }

    async fn the_largest_manifest_is_recorded(db: TestDb) {
        let layers: Vec<String> = (0..9_000).map(|number| format!("layer {number}")).collect();
        let image = image("config", &layers.iter().map(String::as_str).collect::<Vec<_>>());
        record::manifest(&db, &repository("x"), &image, None, Millis(1)).await.unwrap();
        assert_eq!(descriptors(&db, &image.digest).await, image.parsed.descriptors);
        assert!(linked_blob(&db, "x", &digest("layer 8999")).await.is_some());
    }

    async fn bytes_that_are_no_text_come_back_as_they_were(db: TestDb) {
        let mut image = image("config", &[]);
        image.body = Bytes::from_static(b"\r\n\0\xff\xfe");
        record::manifest(&db, &repository("x"), &image, None, Millis(1)).await.unwrap();
        assert_eq!(manifests::load(&db, &image.digest).await.unwrap().unwrap().body, image.body);
    }

    async fn repositories_with_one_name_and_different_upstreams_have_nothing_in_common(db: TestDb) {
        let (hub, quay) = (of("hub", "team/app"), of("quay", "app"));
        let hosted = Repository::Hosted { name: name("team/app") };
        let new = |repository: &Repository| NewRepository { name: name("team/app"), repository: repository.clone() };
        let (first, second) = (image("1", &["a"]), image("2", &[]));
        record::manifest(&db, &new(&hub), &first, Some(&check("t", 1)), Millis(1)).await.unwrap();
        record::manifest(&db, &new(&quay), &second, Some(&check("t", 2)), Millis(2)).await.unwrap();
        for (repository, manifest) in [(&hub, Some(&first)), (&quay, Some(&second)), (&hosted, None)] {
            let found = tags::find(&db, &repository.key(), &tag("t")).await.unwrap();
            assert_eq!(found.map(|row| row.manifest), manifest.map(|manifest| manifest.digest.clone()));
            assert_eq!(tags::list(&db, &repository.key(), None, 9).await.unwrap().len(), usize::from(manifest.is_some()));
            assert_eq!(tags::history(&db, &repository.key(), &tag("t"), 9).await.unwrap().len(), usize::from(manifest.is_some()));
        }
        assert_eq!(links::blob(&db, &quay.key(), &digest("a")).await.unwrap(), None);
        assert_eq!(links::manifest(&db, &quay.key(), &first.digest, false).await.unwrap().proof, None);
        assert_eq!(repositories::catalog(&db, None, 9).await.unwrap(), [name("team/app")]);
    }

    async fn a_hosted_repository_has_content_without_a_source(db: TestDb) {
        let repository = Repository::Hosted { name: name("own") };
        let new = NewRepository { name: name("own"), repository: repository.clone() };
        record::manifest(&db, &new, &image("config", &["a"]), Some(&check("t", 1)), Millis(1)).await.unwrap();
        assert!(tags::find(&db, &repository.key(), &tag("t")).await.unwrap().is_some());
        let linked = links::blob(&db, &repository.key(), &digest("a")).await.unwrap().unwrap();
        assert_eq!(linked.blob.size, None);
        assert!(blobs::sources(&db, &digest("a"), None, Millis(1)).await.unwrap().is_empty());
    }

    async fn a_repository_keeps_its_content_under_a_new_name(db: TestDb) {
        let image = image("config", &[]);
        for text in ["before", "after"] {
            let new = NewRepository { name: name(text), repository: of("hub", "x") };
            record::manifest(&db, &new, &image, Some(&check("t", 1)), Millis(1)).await.unwrap();
        }
        assert_eq!(repositories::catalog(&db, None, 9).await.unwrap(), [name("after")]);
        assert_eq!(tags::history(&db, &key("x"), &tag("t"), 9).await.unwrap().len(), 1);
    }

    async fn the_catalog_is_in_byte_order_and_goes_on_after_a_name(db: TestDb) {
        let names = ["a-b/c", "a.b", "a/b", "a0", "a_b", "ab"];
        for repository_name in names.iter().rev() {
            record::manifest(&db, &repository(repository_name), &image("c", &[]), None, Millis(1)).await.unwrap();
        }
        let all = repositories::catalog(&db, None, 100).await.unwrap();
        assert_eq!(all, names.map(name));
        let page = repositories::catalog(&db, Some(&name("a.b")), 2).await.unwrap();
        assert_eq!(page, [name("a/b"), name("a0")]);
        assert!(repositories::catalog(&db, Some(&name("ab")), 2).await.unwrap().is_empty());
        repositories::touch_pulls(&db, vec![(key("ab"), Millis(5)), (key("a0"), Millis(4))]).await.unwrap();
        repositories::touch_pulls(&db, vec![(key("ab"), Millis(3)), (key("unknown"), Millis(4))]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_manifest_takes_few_statements() {
    let test = super::sqlite().await;
    let (db, statements) = Statements::of(&test.config).await;
    let layers: Vec<String> = (0..9_000).map(|number| format!("layer {number}")).collect();
    let image = image("config", &layers.iter().map(String::as_str).collect::<Vec<_>>());
    for at in [1, 2] {
        record::manifest(&db, &repository("x"), &image, None, Millis(at)).await.unwrap();
        let statements = statements.take();
        assert!(statements.len() < 60, "{}", statements.len());
        assert_eq!(statements.iter().filter(|statement| statement.starts_with("BEGIN")).count(), 1);
    }
}
