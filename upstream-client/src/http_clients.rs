//! The HTTP clients of one upstream.

use reqwest::{Client, ClientBuilder, Proxy, redirect, retry};
use rustls::ClientConfig;

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

/// The addresses that a request may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressPolicy {
    /// The SSRF guard applies.
    PublicOnly,
    Any,
}

/// The clients by address policy and traffic class.
#[derive(Debug)]
pub(crate) struct HttpClients {
    public_only: ByTrafficClass,
    any: ByTrafficClass,
}

#[derive(Debug)]
struct ByTrafficClass {
    metadata: Client,
    blob: Client,
}

impl HttpClients {
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, UpstreamConfigError> {
        let tls = tls::client_config(config.ca_pem.as_deref())?;
        let metadata = || builder(config, &tls, TrafficClass::Metadata);
        let blob = || builder(config, &tls, TrafficClass::Blob);
        // A client with a proxy resolves the name of the proxy only, which the operator chose.
        let guard = |builder: ClientBuilder| {
            if config.proxy.is_none() { builder.dns_resolver(PublicResolver) } else { builder }
        };
        Ok(Self {
            public_only: ByTrafficClass {
                metadata: build(guard(metadata()?))?,
                blob: build(guard(blob()?))?,
            },
            any: ByTrafficClass { metadata: build(metadata()?)?, blob: build(blob()?)? },
        })
    }

    pub(crate) fn get(&self, traffic_class: TrafficClass, policy: AddressPolicy) -> &Client {
        let clients = match policy {
            AddressPolicy::PublicOnly => &self.public_only,
            AddressPolicy::Any => &self.any,
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
    match &config.proxy {
        Some(proxy) => Ok(builder.proxy(Proxy::all(proxy.clone()).map_err(|_| UpstreamConfigError::Proxy)?)),
        None => Ok(builder),
    }
}

fn build(builder: ClientBuilder) -> Result<Client, UpstreamConfigError> {
    builder.build().map_err(|error| UpstreamConfigError::Client(error.without_url().to_string()))
}
