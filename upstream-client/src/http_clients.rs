//! The HTTP clients of one upstream.

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, redirect, retry};
use rustls::ClientConfig;
use settings::proxy::Proxies;

use crate::{UpstreamConfig, UpstreamConfigError, ssrf_guard::SsrfGuard, tls};

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
    pub(crate) fn new(
        config: &UpstreamConfig,
        proxies: &Proxies,
        guard: &SsrfGuard,
    ) -> Result<Self, UpstreamConfigError> {
        let tls = tls::client_config(config.ca_pem.as_deref())?;
        let clients = |to_route: &dyn Fn(ClientBuilder) -> Result<ClientBuilder, reqwest::Error>| {
            let client = |class| {
                build(to_route(builder(config, &tls, class)).map_err(|_| UpstreamConfigError::Proxy)?)
            };
            Ok(ByTrafficClass {
                metadata: client(TrafficClass::Metadata)?,
                blob: client(TrafficClass::Blob)?,
            })
        };
        Ok(Self {
            guarded: clients(&|builder| Ok(builder.dns_resolver(guard.clone())))?,
            any: clients(&|builder| with_proxies(builder, proxies))?,
        })
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

fn builder(config: &UpstreamConfig, tls: &ClientConfig, traffic_class: TrafficClass) -> ClientBuilder {
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
    if traffic_class == TrafficClass::Blob { builder.http1_only() } else { builder }
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
