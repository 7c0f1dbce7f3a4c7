//! The certificate authorities that an upstream is trusted by.

use std::{
    fmt::Display,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::UpstreamConfigError;

/// Trusts the certificate authorities of the system, which are read once per process.
static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();

/// Trusts the certificate authorities of the system, and those in `ca_pem`.
pub(crate) fn client_config(ca_pem: Option<&[u8]>) -> Result<ClientConfig, UpstreamConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamConfigError::Client(error.to_string()))?;
    let Some(pem) = ca_pem else {
        return Ok(SYSTEM.get_or_init(|| with_system_authorities(builder, provider)).clone());
    };
    let invalid = |error: &dyn Display| UpstreamConfigError::Authorities(error.to_string());
    let extra: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| invalid(&error))?;
    if extra.is_empty() {
        return Err(invalid(&"there is no certificate"));
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| invalid(&error))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn with_system_authorities(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    provider: Arc<CryptoProvider>,
) -> ClientConfig {
    match Verifier::new(provider) {
        Ok(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        // Upstreams over http, and those with authorities of their own, still work.
        Err(error) => {
            tracing::warn!(%error, "failed to load the system's certificate authorities; https upstreams without ca_file will fail");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}
