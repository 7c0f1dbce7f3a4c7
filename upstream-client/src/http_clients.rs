//! The HTTP clients of one upstream.

use std::{
    fmt::Display,
    sync::{Arc, OnceLock},
};

use reqwest::{Client, ClientBuilder, Proxy};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::{UpstreamConfig, UpstreamConfigError, ssrf_guard::PublicOnly};

/// What a request is for. The two go over separate connections: bodies of blobs that nobody reads for a while would
/// fill the flow-control window of an HTTP/2 connection and stall the small requests beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Manifests, lists, tokens, `HEAD`s; HTTP/2 where offered.
    Metadata,
    /// Bodies of blobs, one HTTP/1.1 connection each.
    Blob,
}

/// Clients by lane, and by whether the address guard stands before them.
#[derive(Debug)]
pub(crate) struct Clients {
    guarded: [Client; 2],
    exempt: [Client; 2],
}

impl Clients {
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, UpstreamConfigError> {
        let tls = tls(config.ca_pem.as_deref())?;
        let build = |lane, guarded| {
            let builder = builder(config, &tls, lane)?;
            // With a proxy it is the proxy's name that is resolved here, and that is the operator's choice.
            let builder =
                if guarded && config.proxy.is_none() { builder.dns_resolver(PublicOnly) } else { builder };
            builder.build().map_err(|error| UpstreamConfigError::Client(error.without_url().to_string()))
        };
        Ok(Self {
            guarded: [build(Lane::Metadata, true)?, build(Lane::Blob, true)?],
            exempt: [build(Lane::Metadata, false)?, build(Lane::Blob, false)?],
        })
    }

    pub(crate) fn pick(&self, lane: Lane, exempt: bool) -> &Client {
        let [metadata, blob] = if exempt { &self.exempt } else { &self.guarded };
        match lane {
            Lane::Metadata => metadata,
            Lane::Blob => blob,
        }
    }
}

fn builder(
    config: &UpstreamConfig,
    tls: &ClientConfig,
    lane: Lane,
) -> Result<ClientBuilder, UpstreamConfigError> {
    let mut tls = tls.clone();
    tls.alpn_protocols = match lane {
        Lane::Metadata => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Lane::Blob => vec![b"http/1.1".to_vec()],
    };
    let builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .tls_backend_preconfigured(tls);
    let builder = if lane == Lane::Blob { builder.http1_only() } else { builder };
    match &config.proxy {
        Some(proxy) => Ok(builder.proxy(Proxy::all(proxy.clone()).map_err(|_| UpstreamConfigError::Proxy)?)),
        None => Ok(builder),
    }
}

/// Trust in the system's certificate authorities, which are read once a process.
static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();

fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, UpstreamConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamConfigError::Client(error.to_string()))?;
    let Some(pem) = ca_pem else {
        return Ok(SYSTEM.get_or_init(|| trusting_the_system(builder, provider)).clone());
    };
    let bad = |error: &dyn Display| UpstreamConfigError::Authorities(error.to_string());
    let extra: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| bad(&error))?;
    if extra.is_empty() {
        return Err(bad(&"there is no certificate"));
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| bad(&error))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn trusting_the_system(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    provider: Arc<CryptoProvider>,
) -> ClientConfig {
    match Verifier::new(provider) {
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        // A machine without authorities can still speak to upstreams over http, or with authorities of their own.
        Err(error) => {
            tracing::warn!(%error, "the system has no certificate authorities: no https upstream will be trusted");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}
