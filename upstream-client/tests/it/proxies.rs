use settings::proxy::{Proxies, ProxySetting};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use upstream_client::{
    Priority::Client,
    ProxyRefusal::{Connection, Login},
    UpstreamConfig, UpstreamError,
};
use url::Url;

use crate::{
    support::{Reply, Server, hang_up, reference, reply, repository, upstream},
    tls::acceptor,
};

/// The upstream at a URL behind a proxy with a login.
fn behind(proxy: &Url, url: &str) -> UpstreamConfig {
    let mut config = UpstreamConfig::new("test", Url::parse(url).unwrap());
    let mut proxy = proxy.clone();
    proxy.set_username("robot").unwrap();
    proxy.set_password(Some("hidden")).unwrap();
    config.proxy = ProxySetting::Url(proxy);
    config
}

async fn get(config: UpstreamConfig) -> Result<(), UpstreamError> {
    upstream(config).get_manifest(&repository("a"), &reference("t"), Client).await.map(|_| ())
}

/// `HOST:PORT` of a server.
fn host(server: &Server) -> String {
    server.url.authority().to_owned()
}

#[tokio::test]
async fn a_tunnel_leads_to_an_https_upstream() {
    let (acceptor, authority) = acceptor();
    let server = Server::start_with(Some(acceptor), |_| reply(200).body("{}")).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", proxy.local_addr().unwrap())).unwrap();
    let tunnel = tokio::spawn(async move {
        let mut client = BufReader::new(proxy.accept().await.unwrap().0);
        let mut lines = Vec::new();
        while !lines.ends_with(&["\r\n".to_owned()]) {
            let mut line = String::new();
            client.read_line(&mut line).await.unwrap();
            lines.push(line);
        }
        let mut server = TcpStream::connect(lines[0].split(' ').nth(1).unwrap()).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(copy_bidirectional(&mut client, &mut server).await);
        lines.concat().to_ascii_lowercase()
    });
    let mut config = behind(&url, server.url.as_str());
    config.ca_pem = Some(authority.into_bytes());
    get(config).await.unwrap();
    let head = tunnel.await.unwrap();
    // robot:hidden
    assert!(head.contains("proxy-authorization: basic cm9ib3q6aglkzgvu"), "{head}");
    assert_eq!(server.requests()[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_its_own_error_and_is_not_repeated() {
    let page = |status: u16| reply(status).header("content-type", "text/html").body("<html>no</html>");
    let refused = || Connection { host: "registry.example.com".to_owned() };
    let long = reply(200).header("x-filler", "x".repeat(9000));
    for (answer, expected) in [
        (page(407), Login),
        (page(403), refused()),
        (page(502), refused()),
        (page(503), refused()),
        (reply(204), refused()),
        (long, refused()),
    ] {
        let proxy = Server::start(move |_| answer.clone()).await;
        let mut config = behind(&proxy.url, "https://registry.example.com");
        config.breaker_failures = 1;
        let upstream = upstream(config);
        for attempts in 1..=3 {
            let failed = upstream.get_manifest(&repository("a"), &reference("t"), Client).await.unwrap_err();
            let refusal = expected.clone();
            assert_eq!(failed, UpstreamError::ProxyRefused { proxy: host(&proxy), refusal });
            assert_eq!(proxy.requests().len(), attempts);
            let reason = failed.public_reason().unwrap();
            assert!(reason.contains(&host(&proxy)) && !reason.contains("hidden"), "{reason}");
        }
        assert_eq!(proxy.requests()[0].target, "registry.example.com:443");
        assert_eq!(upstream.status().circuit_open_for, None);
    }
}

#[tokio::test]
async fn the_login_that_the_proxy_refuses_is_sent_once_to_http_upstreams_too() {
    let proxy = Server::start(|_| reply(407).header("proxy-authenticate", "Basic realm=\"proxy\"")).await;
    let failed = get(behind(&proxy.url, "http://registry.example.com")).await.unwrap_err();
    assert_eq!(failed, UpstreamError::ProxyRefused { proxy: host(&proxy), refusal: Login });
    assert_eq!(proxy.requests().len(), 1);
    assert_eq!(proxy.requests()[0].header("proxy-authorization"), Some("Basic cm9ib3Q6aGlkZGVu"));
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_named() {
    let proxy = Server::start(|_| hang_up()).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = Url::parse(&format!("http://{closed}")).unwrap();
    for (proxy, url, named) in [
        (&proxy.url, "https://registry.example.com", "the proxy PROXY: tunnel error: unexpected end of file"),
        (&proxy.url, "http://registry.example.com", "registry.example.com through the proxy PROXY: "),
        (&closed, "https://registry.example.com", "the proxy PROXY: Connection refused"),
        (&closed, "http://registry.example.com", "the proxy PROXY: Connection refused"),
    ] {
        let failed = get(behind(proxy, url)).await.unwrap_err().to_string();
        let expected = format!("failed to reach upstream: {}", named.replace("PROXY", proxy.authority()));
        assert!(failed.starts_with(&expected), "{failed}");
    }
}

/// A proxy that forwards to a registry, which redirects to a host, and to that host.
async fn redirecting_to(location: &'static str) -> Server {
    let answer = move |target: &str| -> Reply {
        match target.starts_with("http://registry.corp:5000/v2/") {
            true => reply(307).header("location", location),
            false => reply(200).body("{}"),
        }
    };
    Server::start(move |request| answer(&request.target)).await
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_names_that_no_public_host_has() {
    for (location, is_followed) in [
        ("http://intranet/x", false),
        ("http://storage.corp/x", false),
        ("http://vault.internal./x", false),
        ("http://localhost:8080/x", false),
        ("http://10.0.0.1/x", false),
        ("http://registry.corp:9000/x", true),
        ("http://storage.example.com/x", true),
    ] {
        let proxy = redirecting_to(location).await;
        let config = behind(&proxy.url, "http://registry.corp:5000");
        let followed = get(config.clone()).await;
        assert_eq!(followed.is_ok(), is_followed, "{location}: {followed:?}");
        assert_eq!(proxy.requests().len(), if is_followed { 2 } else { 1 }, "{location}");
        if let Err(refused) = followed {
            assert!(matches!(refused, UpstreamError::InvalidResponse(_)), "{refused:?}");
            assert!(refused.to_string().contains("allow_private"), "{refused}");
        }
        get(UpstreamConfig { allow_private: true, ..config }).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_without_the_proxy_of_the_environment_is_resolved_by_the_guard() {
    let inside = Server::start(|_| reply(200).body("secret")).await;
    let location = format!("http://localhost:{}/x", inside.url.port().unwrap());
    let proxy = Server::start(move |_| reply(307).header("location", &location)).await;
    let mut config = UpstreamConfig::new("test", Url::parse("http://registry.example.com").unwrap());
    let url = proxy.url.as_str().to_owned();
    config.env_proxies =
        Proxies::of_environment(|name| (name == "HTTP_PROXY").then_some(url.as_str())).unwrap();
    let refused = get(config).await.unwrap_err();
    assert!(refused.to_string().contains("allow_private"), "{refused}");
    assert_eq!((proxy.requests().len(), inside.requests().len()), (1, 0));
}
