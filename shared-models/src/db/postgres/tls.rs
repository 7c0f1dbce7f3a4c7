//! TLS to PostgreSQL.

use std::{error::Error, io, sync::Arc};

use rustls::{ClientConfig, crypto::ring};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::verify::{Verification, Verifier};
use crate::db::DbError;

/// Creates the TLS connector, which verifies servers according to `verification`.
///
/// # Errors
/// [`DbError::Config`] if certificates cannot be read.
pub(super) fn connector(verification: Verification) -> Result<MakeRustlsConnect, DbError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(verification, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::config(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whether a connection failed because client and server did not agree on TLS, or the certificate is not trusted.
pub(super) fn is_handshake_failure(error: &tokio_postgres::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let is_tls = |error: &(dyn Error + 'static)| error.is::<rustls::Error>();
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if is_tls(error) || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}
