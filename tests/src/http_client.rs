//! A plain HTTP client for tests.

/// A client that follows no redirects, uses no proxy, and fails after a minute without a byte.
pub fn http_client() -> reqwest::Client {
    builder().build().expect("an HTTP client")
}

/// The same client, with a new connection for each request.
pub fn http_client_without_pool() -> reqwest::Client {
    builder().pool_max_idle_per_host(0).build().expect("an HTTP client")
}

fn builder() -> reqwest::ClientBuilder {
    // An error says that another test has installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .read_timeout(std::time::Duration::from_secs(60))
}
