//! Verification of the server's certificate.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use crate::db::DbError;

/// What is verified of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verification {
    /// Nothing: protects against eavesdropping, not against impersonation.
    Off,
    /// A trusted authority has signed it.
    Chain {
        /// A file of certificates (PEM); for `None` and `system`, the certificates that the operating system trusts.
        root: Option<String>,
    },
    /// As `Chain`, and it is valid for the host of the URL.
    ChainAndName {
        /// As in `Chain`.
        root: Option<String>,
    },
}

/// The verifier that rustls calls.
pub(super) struct Verifier {
    /// `None` without verification.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    /// Certificates in the file of `sslrootcert`, which the server may present as its own. rustls
    /// does not accept a self-signed certificate as an authority, but many databases have one, and
    /// libpq accepts it.
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// # Errors
    /// [`DbError::Config`] if certificates cannot be read or there are none.
    pub(super) fn new(verification: Verification, provider: Arc<CryptoProvider>) -> Result<Self, DbError> {
        let (root, name) = match verification {
            Verification::Off => return Ok(Self { chain: None, name: false, named: Vec::new(), provider }),
            Verification::Chain { root } => (root, false),
            Verification::ChainAndName { root } => (root, true),
        };
        let (certificates, named) = match root.as_deref() {
            None | Some("system") => (rustls_native_certs::load_native_certs().certs, Vec::new()),
            Some(path) => {
                let all = read(path)?;
                (all.clone(), all)
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| DbError::config(format!("no trusted certificate (sslrootcert): {error}")))?;
        Ok(Self { chain: Some(chain), name, named, provider })
    }
}

fn read(path: &str) -> Result<Vec<CertificateDer<'static>>, DbError> {
    let failed = |error: &dyn fmt::Display| DbError::config(format!("sslrootcert {path}: {error}"));
    let all = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    if all.is_empty() {
        return Err(failed(&"contains no certificate"));
    }
    Ok(all)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.named.contains(end_entity) {
            if self.name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Verifier").field("name", &self.name).finish_non_exhaustive()
    }
}
