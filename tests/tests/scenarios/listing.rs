//! Lists of tags and the catalog.

use reqwest::Method;
use serde_json::json;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    image::Image,
    world::TestWorld,
};

use crate::support::*;

const LIST: &str = "/v2/up/library/x/tags/list";

/// An upstream with the tags a to e on one image.
async fn with_tags() -> (ChaosUpstream, Image) {
    let (upstream, image) = with_image().await;
    upstream.delete_tag(UPSTREAM_NAME, "1");
    for tag in ["a", "b", "c", "d", "e"] {
        upstream.move_tag(UPSTREAM_NAME, tag, &image.digest);
    }
    (upstream, image)
}

/// The value of `Link` for a next page.
fn next_page(world: &TestWorld, path: &str) -> String {
    format!("<{}{path}>; rel=\"next\"", world.api())
}

/// Follows `Link` from a first page to the last one; the pages' entries.
async fn pages(world: &TestWorld, first: &str, key: &str) -> Vec<Vec<String>> {
    let (mut pages, mut path) = (Vec::new(), first.to_owned());
    loop {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let entries = body[key].as_array().unwrap();
        pages.push(entries.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect());
        let link = answer.header("link");
        match link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) {
            Some(next) => path = next.to_owned(),
            None => {
                assert_eq!(link, "");
                return pages;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_as_upstream_lists_them_page_by_page() {
    let (upstream, _) = with_tags().await;
    let world = TestWorld::start(&upstream).await;
    let whole = world.json(LIST).await;
    assert_eq!(whole, json!({ "name": "up/library/x", "tags": ["a", "b", "c", "d", "e"] }));
    assert_eq!(
        pages(&world, &format!("{LIST}?n=2"), "tags").await,
        [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
    );
    assert_eq!(pages(&world, &format!("{LIST}?n=5"), "tags").await, [["a", "b", "c", "d", "e"]]);
    assert_eq!(pages(&world, &format!("{LIST}?last=c"), "tags").await, [["d", "e"]]);
    assert_eq!(pages(&world, &format!("{LIST}?n=1&last=d"), "tags").await, [["e"]]);
    assert_eq!(pages(&world, &format!("{LIST}?n=0"), "tags").await, [Vec::<String>::new()]);
    assert!(pages(&world, &format!("{LIST}?last=zzz"), "tags").await[0].is_empty());
    // Looking at a list is not pulling.
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_kept_for_the_tag_ttl() {
    let (upstream, image) = with_tags().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "tag_ttl = \"4s\"")
        .upstream("checked", &upstream, ALWAYS_CHECKED)
        .start()
        .await;
    for _ in 0..3 {
        world.json(LIST).await;
        world.json(&format!("{LIST}?n=2")).await;
    }
    assert_eq!(upstream.count("GET", "tags/list"), 1, "pages are those of one list");
    upstream.move_tag(UPSTREAM_NAME, "f", &image.digest);
    assert_eventually!(world.json(LIST).await["tags"].as_array().unwrap().len() == 6);
    upstream.clear_requests();
    for asked in 1..=3 {
        world.json("/v2/checked/library/x/tags/list").await;
        assert_eq!(upstream.requests().len(), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_tags_are_listed_when_upstream_cannot_say() {
    let (upstream, image) = with_tags().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    for tag in ["d", "b", "a"] {
        assert_image(&Method::GET, &world.get(&manifest(tag)).await, &image);
    }
    for failing in failures() {
        upstream.clear_rules();
        upstream.on(Rule::on("GET", "/tags/list").then(failing.fault));
        assert_eq!(world.json(LIST).await["tags"], json!(["a", "b", "d"]), "{}", failing.what);
    }
    upstream.stop();
    assert_eq!(pages(&world, &format!("{LIST}?n=2"), "tags").await, [vec!["a", "b"], vec!["d"]]);
    assert_eq!(world.json(&format!("{LIST}?last=b")).await["tags"], json!(["d"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_upstream_does_not_give_is_refused_where_nothing_is_here() {
    let (upstream, _) = with_tags().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, ALWAYS_CHECKED)
        .sections("[api]\nnegative_ttl = \"0\"")
        .start()
        .await;
    for failing in failures() {
        upstream.clear_rules();
        upstream.clear_requests();
        upstream.on(Rule::on("GET", "/tags/list").then(failing.fault.clone()));
        let answer = world.get(LIST).await;
        let code = failing.code.replace("MANIFEST_", "NAME_");
        assert_error(&Method::GET, &answer, failing.status, &code);
        assert_eq!(answer.header("retry-after"), failing.retry_after, "{}", failing.what);
        if failing.what == "odd-status" {
            // Smaller pages might be accepted.
            assert_eq!(upstream.count("GET", "tags/list"), 3);
        } else {
            failing.assert_requests(upstream.count("GET", "tags/list"));
        }
    }
    assert_nothing_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_pages_on_its_own_or_not_at_all_is_paged_for_clients() {
    let (upstream, _) = with_tags().await;
    let world = TestWorld::builder().upstream("up", &upstream, ALWAYS_CHECKED).start().await;
    let body = json!({ "name": UPSTREAM_NAME, "tags": ["a", "b", "c", "not a tag", "-d"] }).to_string();
    upstream.on(Rule::on("GET", "/tags/list").then(Fault::Status(200, Vec::new(), body.into())));
    let answer = world.get(&format!("{LIST}?n=2")).await;
    assert_eq!(answer.body, json!({ "name": NAME, "tags": ["a", "b"] }).to_string());
    assert_eq!(answer.header("link"), next_page(&world, "/v2/up/library/x/tags/list?n=2&last=b"));
    assert_eq!(world.json(LIST).await["tags"], json!(["a", "b", "c"]));
    upstream.clear_rules();
    let none = json!({ "name": UPSTREAM_NAME, "tags": null }).to_string();
    upstream.on(Rule::on("GET", "/tags/list").then(Fault::Status(200, Vec::new(), none.into())));
    assert_eq!(world.json(LIST).await["tags"], json!([]));
    // A link to elsewhere is not passed on: it is ours that clients follow.
    upstream.clear_rules();
    let link = "<http://elsewhere.test/v2/library/x/tags/list?n=2&last=b>; rel=\"next\"".to_owned();
    upstream.on(Rule::on("GET", "/tags/list").then(Fault::ExtraHeaders(vec![("Link".to_owned(), link)])));
    let answer = world.get(&format!("{LIST}?n=2")).await;
    assert_eq!(answer.header("link"), next_page(&world, "/v2/up/library/x/tags/list?n=2&last=b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_clamped_and_keep_ns() {
    let (upstream, _) = with_tags().await;
    let world = TestWorld::builder()
        .upstream("up", &upstream, "hosts = [\"up.test:5000\"]")
        .sections("[api]\nmax_page_size = 2")
        .start()
        .await;
    let path = "/v2/library/x/tags/list?n=1000&ns=up.test:5000";
    assert_eq!(pages(&world, path, "tags").await, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    let link = world.get(path).await.header("link").to_owned();
    assert_eq!(link, next_page(&world, "/v2/library/x/tags/list?n=2&last=b&ns=up.test%3A5000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_lists_what_is_known_here_in_byte_order() {
    let upstream = ChaosUpstream::start().await;
    let image = Image::random(1, &[10]);
    let names = ["b/x", "a", "a-b", "a/b", "a.b", "a0"];
    for name in names {
        upstream.put_image(name, "1", &image);
    }
    let world =
        TestWorld::builder().upstream("up", &upstream, "").sections("[api]\nmax_page_size = 4").start().await;
    for name in names {
        world.get(&manifest_of(&format!("up/{name}"), "1")).await;
    }
    let sorted = ["up/a", "up/a-b", "up/a.b", "up/a/b", "up/a0", "up/b/x"];
    assert_eq!(pages(&world, "/v2/_catalog", "repositories").await, [&sorted[..4], &sorted[4..]]);
    assert_eq!(pages(&world, "/v2/_catalog?n=99999", "repositories").await, [&sorted[..4], &sorted[4..]]);
    assert_eq!(pages(&world, "/v2/_catalog?n=1", "repositories").await.concat(), sorted);
    assert_eq!(pages(&world, "/v2/_catalog?n=3", "repositories").await, [&sorted[..3], &sorted[3..]]);
    assert_eq!(pages(&world, "/v2/_catalog?last=up/a.b", "repositories").await, [&sorted[3..]]);
    assert!(pages(&world, "/v2/_catalog?n=0", "repositories").await[0].is_empty());
    assert!(pages(&world, "/v2/_catalog?last=zz", "repositories").await[0].is_empty());
    let page = world.get("/v2/_catalog?n=4").await;
    assert_eq!(page.header("link"), next_page(&world, "/v2/_catalog?n=4&last=up/a/b"));
}
