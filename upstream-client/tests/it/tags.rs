use upstream_client::{Priority::Client, TagPage, UpstreamError};

use crate::support::{Server, reply, repository};

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
