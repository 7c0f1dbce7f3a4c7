//! Clients of the object store.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3, AmazonS3Builder, AwsCredential},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::config::{Addressing, S3Config};
use crate::StoreError;

/// The client for requests that carry no blob bytes: tried again at once, and all of it in a short time.
pub(super) fn for_answers(config: &S3Config) -> Result<AmazonS3, StoreError> {
    let answer = config.timeouts.answer;
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        base: 2.0,
    };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: answer };
    build(config, config.endpoint.as_ref(), client(config)?.with_timeout(answer), retry)
}

/// The client for blob bytes, which has the credentials of the other. Whoever calls bounds the time and tries
/// again, because that depends on how many bytes there are and how far they came.
pub(super) fn for_bytes(config: &S3Config, answers: &AmazonS3) -> Result<AmazonS3, StoreError> {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let builder = builder(config, config.endpoint.as_ref(), client(config)?.with_timeout_disabled(), retry)?;
    built(builder.with_credentials(answers.credentials().clone()))
}

/// What signs URLs that clients open.
pub(super) fn for_clients(config: &S3Config) -> Result<AmazonS3, StoreError> {
    let endpoint = config.public_endpoint.as_ref().or(config.endpoint.as_ref());
    let answer = config.timeouts.answer;
    let retry = RetryConfig { max_retries: 2, retry_timeout: answer, ..RetryConfig::default() };
    build(config, endpoint, client(config)?.with_timeout(answer), retry)
}

fn build(
    config: &S3Config,
    endpoint: Option<&Url>,
    client: ClientOptions,
    retry: RetryConfig,
) -> Result<AmazonS3, StoreError> {
    built(builder(config, endpoint, client, retry)?)
}

fn built(builder: AmazonS3Builder) -> Result<AmazonS3, StoreError> {
    // TLS is set up even where the endpoint is http; whoever was first has chosen the cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.build().map_err(|error| StoreError::Settings(error.to_string()))
}

fn client(config: &S3Config) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_connect_timeout(config.timeouts.connect)
        .with_pool_idle_timeout(Duration::from_secs(30));
    if let Some(pem) = &config.ca_pem {
        let authorities = Certificate::from_pem_bundle(pem).map_err(|error| {
            StoreError::Settings(format!("the certificate authorities cannot be read: {error}"))
        })?;
        for authority in authorities {
            options = options.with_root_certificate(authority);
        }
    }
    Ok(options)
}

fn builder(
    config: &S3Config,
    endpoint: Option<&Url>,
    client: ClientOptions,
    retry: RetryConfig,
) -> Result<AmazonS3Builder, StoreError> {
    let mut builder = AmazonS3Builder::from_env();
    if let Some(keys) = &config.keys {
        // As one: a session token of the environment belongs to other keys.
        let exposed = |secret: &SecretString| secret.expose_secret().to_owned();
        let keys = AwsCredential {
            key_id: exposed(&keys.access_key),
            secret_key: exposed(&keys.secret_key),
            token: keys.session_token.as_ref().map(exposed),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(keys)));
    }
    if let Some(region) = config.region.as_ref().filter(|region| !region.is_empty()) {
        builder = builder.with_region(region);
    }
    let is_http = endpoint.is_some_and(|endpoint| endpoint.scheme() == "http");
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(bucket_endpoint(config, endpoint)?);
    }
    Ok(builder
        .with_bucket_name(&config.bucket)
        .with_virtual_hosted_style_request(config.addressing == Addressing::VirtualHost)
        // Where TLS guards the bytes on their way, hashing them for the signature would only cost time.
        .with_unsigned_payload(!is_http)
        .with_client_options(client.with_allow_http(is_http))
        .with_retry(retry)
        // Many compatible servers have no bulk delete.
        .with_disable_bulk_delete(true))
}

/// With the bucket in the host name where it belongs there: the client adds it to a path only.
fn bucket_endpoint(config: &S3Config, endpoint: &Url) -> Result<String, StoreError> {
    let bad = || StoreError::Settings(format!("{endpoint} is no endpoint of an object store"));
    let mut endpoint = endpoint.clone();
    if !matches!(endpoint.scheme(), "http" | "https") {
        return Err(bad());
    }
    let host = endpoint.host_str().ok_or_else(bad)?.to_owned();
    if config.addressing == Addressing::VirtualHost {
        endpoint.set_host(Some(&format!("{}.{host}", config.bucket))).map_err(|_| bad())?;
    }
    Ok(endpoint.as_str().trim_end_matches('/').to_owned())
}
