//! A plain HTTP client for tests.

/// A client that follows no redirect, uses no proxy, and gives up after a minute without a byte.
pub fn http_client() -> reqwest::Client {
    builder().build().expect("an HTTP client")
}

/// The same, with a connection of its own for each request.
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
