use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use upstream_client::{Priority::Client, TagPage, Upstream, UpstreamError};

use crate::support::{Counts, Server, reference, reply, repository};

fn names(page: &TagPage) -> Vec<&str> {
    page.tags.iter().map(|tag| tag.as_str()).collect()
}

#[tokio::test]
async fn pages_of_tags_are_followed_by_the_links_of_the_upstream() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/b/tags/list?n=10000" => reply(200)
            .header("link", "</v2/a/b/tags/list?n=2&last=opaque%2B>; rel=\"next\"")
            .body(r#"{"name":"a/b","tags":["3.18","not a tag","3.19"]}"#),
        "/v2/a/b/tags/list?n=2&last=opaque%2B" => reply(200).body(r#"{"name":"a/b","tags":null}"#),
        _ => reply(404),
    })
    .await;
    let (upstream, name) = (server.upstream(), repository("a/b"));
    let first = upstream.list_tags(&name, None, Client).await.unwrap();
    assert_eq!(names(&first), ["3.18", "3.19"]);
    let second = upstream.list_tags(&name, first.next.as_ref(), Client).await.unwrap();
    assert_eq!((names(&second), &second.next), (vec![], &None));
    assert_eq!(upstream.list_tags(&repository("c"), None, Client).await, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn the_size_of_a_page_is_reduced_until_the_upstream_accepts_it() {
    for (accepted, requests) in [("?n=1000", 2), ("", 3)] {
        let server = Server::start(move |request| match request.target.strip_prefix("/v2/a/tags/list") {
            Some(query) if query == accepted => reply(200).body(r#"{"tags":["1"]}"#),
            _ => reply(400),
        })
        .await;
        let upstream = server.upstream();
        for further in 0..2 {
            assert_eq!(names(&upstream.list_tags(&repository("a"), None, Client).await.unwrap()), ["1"]);
            assert_eq!(server.requests().len(), requests + further);
        }
    }
}

#[tokio::test]
async fn a_malformed_tag_list_is_an_invalid_response() {
    let server = Server::start(|_| reply(200).body("<html>")).await;
    let refused = server.upstream().list_tags(&repository("a"), None, Client).await;
    assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{refused:?}");
}

#[tokio::test]
async fn a_page_with_millions_of_tags_or_without_an_end_is_too_large() {
    let many = format!(r#"{{"tags":["a"{}]}}"#, r#","a""#.repeat(3_000_000));
    let endless = format!("1000000\r\n{}\r\n", " ".repeat(1 << 24)) + "1\r\n \r\n";
    let server = Server::start(move |request| match request.target.starts_with("/v2/many/") {
        true => reply(200).body(&many),
        false => reply(200).header("transfer-encoding", "chunked").body(&endless).stall_after(endless.len()),
    })
    .await;
    for name in ["many", "endless"] {
        let refused = server.upstream().list_tags(&repository(name), None, Client).await;
        assert_eq!(refused, Err(UpstreamError::TooLarge), "{name}");
    }
}

/// What one connection has received of a page before the rest is sent.
const BEGINNING: usize = 1000;

#[tokio::test]
async fn concurrent_pages_of_tags_are_limited_by_the_memory_for_metadata() {
    let mut page = br#"{"tags":["1"]}"#.to_vec();
    page.resize(64 * 1024, b' ');
    let (release, is_released) = watch::channel(false);
    let length = u64::try_from(page.len()).unwrap();
    let server =
        Server::start(move |_| reply(200).body(&page).rest_when(BEGINNING, is_released.clone())).await;
    let counts = Arc::new(Counts::default());
    let mut config = server.config();
    (config.metadata_memory, config.answer_timeout) = (2 * length, Duration::from_mins(1));
    let upstream = Upstream::new(config, counts.clone()).unwrap();
    let mut lists: JoinSet<_> = (0..8)
        .map(|number| {
            let (upstream, name) = (upstream.clone(), repository(&format!("a{number}")));
            async move { upstream.list_tags(&name, None, Client).await }
        })
        .collect();
    // All responses have begun, and two are being received.
    let beginnings = 2 * u64::try_from(BEGINNING).unwrap();
    while counts.exchanges.lock().unwrap().len() < 8 || counts.bytes.load(Ordering::Relaxed) < beginnings {
        tokio::task::yield_now().await;
    }
    upstream.head_manifest(&repository("a"), &reference("t"), Client).await.unwrap();
    assert_eq!(counts.bytes.load(Ordering::Relaxed), beginnings);
    release.send_replace(true);
    while let Some(list) = lists.join_next().await {
        assert_eq!(names(&list.unwrap().unwrap()), ["1"]);
    }
    assert_eq!(counts.bytes.load(Ordering::Relaxed), 8 * length);
}
