use upstream_client::{Priority::Client, UpstreamError};

use crate::support::{Server, reply, repository};

#[tokio::test]
async fn a_page_of_tags_has_the_start_of_the_next_one() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/b/tags/list?n=2" => reply(200)
            .header("link", "</v2/a/b/tags/list?n=2&last=3.19>; rel=\"next\"")
            .body(r#"{"name":"a/b","tags":["3.18","not a tag","3.19"]}"#),
        "/v2/a/b/tags/list?n=2&last=3.19" => reply(200).body(r#"{"name":"a/b","tags":null}"#),
        _ => reply(404),
    })
    .await;
    let (upstream, name) = (server.upstream(), repository("a/b"));
    let page = upstream.list_tags(&name, Some(2), None, Client).await.unwrap();
    assert_eq!(page.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["3.18", "3.19"]);
    let last = upstream.list_tags(&name, Some(2), page.next_last.as_deref(), Client).await.unwrap();
    assert_eq!((last.tags.len(), last.next_last), (0, None));
    assert_eq!(upstream.list_tags(&name, None, None, Client).await, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn a_malformed_tag_list_is_an_invalid_response() {
    let server = Server::start(|_| reply(200).body("<html>")).await;
    let refused = server.upstream().list_tags(&repository("a"), None, None, Client).await;
    assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{refused:?}");
}
