use super::*;

/// The lines of the shown configuration about proxies.
fn shown(document: &str, env: &[(&str, &str)]) -> Vec<String> {
    let shown = Written::new(document).load(env).unwrap().to_toml().unwrap();
    let (_, lines) = shown.split_once("# The proxies of requests:\n").unwrap();
    lines.lines().map(str::to_owned).collect()
}

const UPSTREAMS: &str = r#"
    [[upstream]]
    name = "hub"
    url = "https://registry-1.docker.io"
    [[upstream]]
    name = "own"
    url = "https://registry.corp.example.com"
    proxy = "http://user:secret@other.example.com:8080"
    [[upstream]]
    name = "direct"
    url = "https://registry.example.org"
    proxy = "none"
    [[upstream]]
    name = "local"
    url = "http://localhost:5000"
"#;

#[test]
fn the_proxy_of_each_upstream_is_shown_without_its_login() {
    let env = [
        ("https_proxy", "http://user:secret@proxy.example.com:3128"),
        ("HTTP_PROXY", "http://plain.example.com"),
    ];
    assert_eq!(
        shown(UPSTREAMS, &env),
        [
            "# upstream hub: http://proxy.example.com:3128",
            "# upstream own: http://other.example.com:8080",
            "# upstream direct: none",
            "# upstream local: none",
        ]
    );
    let all = [("ALL_PROXY", "proxy.example.com:3128"), ("no_proxy", "docker.io")];
    assert_eq!(shown(UPSTREAMS, &all)[0], "# upstream hub: none");
    assert_eq!(shown(UPSTREAMS, &[])[0], "# upstream hub: none");
}

#[test]
fn the_proxy_of_the_object_store_is_shown() {
    let of = |keys: &str, env: &[(&str, &str)]| {
        let document = format!("upstream = []\n[storage]\nkind = \"s3\"\nbucket = \"a\"\n{keys}");
        shown(&document, env).pop().unwrap()
    };
    let env = [("HTTPS_PROXY", "http://proxy.example.com:3128"), ("NO_PROXY", "corp.example.com")];
    assert_eq!(of("", &env), "# object store: http://proxy.example.com:3128");
    assert_eq!(of("endpoint = \"https://s3.corp.example.com\"", &env), "# object store: none");
    assert_eq!(of("endpoint = \"http://s3.example.com\"", &env), "# object store: none");
    assert_eq!(of("proxy = \"none\"", &env), "# object store: none");
    let own = "proxy = \"https://user:secret@other.example.com\"";
    assert_eq!(of(own, &env), "# object store: https://other.example.com");
}

#[test]
fn a_variable_without_an_http_proxy_is_refused_where_it_applies() {
    let socks = ("ALL_PROXY", "socks5://user:secret@proxy.example.com");
    assert_eq!(
        Written::new("").error(&[socks]),
        "ALL_PROXY: the proxy must be an HTTP proxy: http://HOST:PORT or https://HOST:PORT"
    );
    let (http, https) = (("HTTP_PROXY", "proxy:80"), ("HTTPS_PROXY", "proxy:80"));
    assert!(Written::new("").load(&[socks, http, https]).is_ok());
}
