//! The HTTP clients of one upstream.

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, redirect, retry};
use rustls::ClientConfig;
use settings::proxy::Proxies;

use crate::{UpstreamConfig, UpstreamConfigError, ssrf_guard::PublicResolver, tls};

/// The connections that a request uses. Metadata and blobs have separate ones: the body of a blob that is read slowly
/// would fill the flow-control window of an HTTP/2 connection and stall the other requests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrafficClass {
    /// Manifests, lists, tokens and `HEAD`; HTTP/2 where offered.
    Metadata,
    /// Bodies of blobs; one HTTP/1.1 connection each.
    Blob,
}

/// How a request reaches its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Directly; the SSRF guard resolves the name.
    Guarded,
    /// To any address, through a proxy where one is configured for the host.
    Any,
}

/// The clients by route and traffic class.
#[derive(Debug)]
pub(crate) struct HttpClients {
    guarded: ByTrafficClass,
    any: ByTrafficClass,
}

#[derive(Debug)]
struct ByTrafficClass {
    metadata: Client,
    blob: Client,
}

impl HttpClients {
    pub(crate) fn new(config: &UpstreamConfig, proxies: &Proxies) -> Result<Self, UpstreamConfigError> {
        let tls = tls::client_config(config.ca_pem.as_deref())?;
        let clients = |route| {
            let client = |class| build(builder(config, &tls, class, proxies, route)?);
            Ok(ByTrafficClass {
                metadata: client(TrafficClass::Metadata)?,
                blob: client(TrafficClass::Blob)?,
            })
        };
        Ok(Self { guarded: clients(Route::Guarded)?, any: clients(Route::Any)? })
    }

    pub(crate) fn get(&self, traffic_class: TrafficClass, route: Route) -> &Client {
        let clients = match route {
            Route::Guarded => &self.guarded,
            Route::Any => &self.any,
        };
        match traffic_class {
            TrafficClass::Metadata => &clients.metadata,
            TrafficClass::Blob => &clients.blob,
        }
    }
}

fn builder(
    config: &UpstreamConfig,
    tls: &ClientConfig,
    traffic_class: TrafficClass,
    proxies: &Proxies,
    route: Route,
) -> Result<ClientBuilder, UpstreamConfigError> {
    let mut tls = tls.clone();
    tls.alpn_protocols = match traffic_class {
        TrafficClass::Metadata => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        TrafficClass::Blob => vec![b"http/1.1".to_vec()],
    };
    let builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .tls_backend_preconfigured(tls);
    let builder = if traffic_class == TrafficClass::Blob { builder.http1_only() } else { builder };
    match route {
        Route::Guarded => Ok(builder.dns_resolver(PublicResolver)),
        Route::Any => with_proxies(builder, proxies).map_err(|_| UpstreamConfigError::Proxy),
    }
}

fn with_proxies(mut builder: ClientBuilder, proxies: &Proxies) -> Result<ClientBuilder, reqwest::Error> {
    let no_proxy = || NoProxy::from_string(proxies.no_proxy());
    if let Some(url) = proxies.http() {
        builder = builder.proxy(Proxy::http(url)?.no_proxy(no_proxy()));
    }
    if let Some(url) = proxies.https() {
        builder = builder.proxy(Proxy::https(url)?.no_proxy(no_proxy()));
    }
    Ok(builder)
}

fn build(builder: ClientBuilder) -> Result<Client, UpstreamConfigError> {
    builder.build().map_err(|error| UpstreamConfigError::Client(error.without_url().to_string()))
}
