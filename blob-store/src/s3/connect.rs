//! The HTTP clients of the object store.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3, AmazonS3Builder, AwsCredential},
};
use secrecy::{ExposeSecret, SecretString};
use settings::proxy::ProxyAddress;
use url::Url;

use super::config::{Addressing, S3Config};
use crate::StoreError;

/// A last change to the builder of a client; tests set a connector that needs no network.
pub(crate) type Customize<'a> = &'a dyn Fn(AmazonS3Builder) -> AmazonS3Builder;

/// The client for requests without blob bytes. It retries by itself, within the response timeout.
pub(super) fn meta_client(config: &S3Config, customize: Customize<'_>) -> Result<AmazonS3, StoreError> {
    let answer = config.timeouts.answer;
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(500),
        base: 2.0,
    };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: answer };
    let options = client_options(config)?.with_timeout(answer);
    build(customize(builder(config, config.endpoint.as_ref(), options, retry)?))
}

/// The client for blob bytes, with the credentials of the other one. It neither retries nor has a timeout: both depend
/// on the number of bytes, which the caller knows.
pub(super) fn data_client(
    config: &S3Config,
    meta_client: &AmazonS3,
    customize: Customize<'_>,
) -> Result<AmazonS3, StoreError> {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let options = client_options(config)?.with_timeout_disabled();
    let builder = builder(config, config.endpoint.as_ref(), options, retry)?;
    build(customize(builder.with_credentials(meta_client.credentials().clone())))
}

/// The client that signs URLs for the public endpoint.
pub(super) fn signing_client(config: &S3Config) -> Result<AmazonS3, StoreError> {
    let endpoint = config.public_endpoint.as_ref().or(config.endpoint.as_ref());
    let answer = config.timeouts.answer;
    let retry = RetryConfig { max_retries: 2, retry_timeout: answer, ..RetryConfig::default() };
    build(builder(config, endpoint, client_options(config)?.with_timeout(answer), retry)?)
}

impl S3Config {
    /// The proxy of requests to the object store.
    pub fn proxy_of_endpoint(&self) -> Option<ProxyAddress> {
        let aws = || Url::parse(AWS_ENDPOINT).ok();
        self.proxy.proxies(&self.env_proxies).of(&self.endpoint.clone().or_else(aws)?)
    }
}

fn build(builder: AmazonS3Builder) -> Result<AmazonS3, StoreError> {
    // Clients also set up TLS for http endpoints. An error means that a provider is installed
    // already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.build().map_err(StoreError::config)
}

fn client_options(config: &S3Config) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_connect_timeout(config.timeouts.connect)
        .with_pool_idle_timeout(Duration::from_secs(30));
    if let Some(pem) = &config.ca_pem {
        let authorities = Certificate::from_pem_bundle(pem)
            .map_err(|error| StoreError::config(format!("invalid certificate authorities: {error}")))?;
        for authority in authorities {
            options = options.with_root_certificate(authority);
        }
    }
    Ok(with_proxy(options, config))
}

/// The URL of the object store without an endpoint, but for its region.
const AWS_ENDPOINT: &str = "https://s3.amazonaws.com";

/// Destinations without a proxy in any case: the addresses of clouds for the credentials of an instance or a container.
const METADATA_SERVICES: &str = "169.254.0.0/16,fd00:ec2::/32";

/// All destinations.
const EVERYWHERE: &str = "*,0.0.0.0/0,::/0";

/// Sets the proxy. The HTTP client would else use those of the environment, by rules that differ.
fn with_proxy(options: ClientOptions, config: &S3Config) -> ClientOptions {
    let proxies = config.proxy.proxies(&config.env_proxies);
    let is_http = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    match if is_http { proxies.http() } else { proxies.https() } {
        Some(url) => options
            .with_proxy_url(url)
            .with_proxy_excludes(format!("{METADATA_SERVICES},{}", proxies.no_proxy())),
        None => options.with_proxy_url("http://none.invalid").with_proxy_excludes(EVERYWHERE),
    }
}

fn builder(
    config: &S3Config,
    endpoint: Option<&Url>,
    options: ClientOptions,
    retry: RetryConfig,
) -> Result<AmazonS3Builder, StoreError> {
    let mut builder = AmazonS3Builder::from_env();
    if let Some(keys) = &config.keys {
        // Set together: a session token from the environment belongs to other keys.
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
        // TLS protects the bytes already; hashing them for the signature as well costs CPU time.
        .with_unsigned_payload(!is_http)
        .with_client_options(options.with_allow_http(is_http))
        .with_retry(retry)
        // Many S3-compatible servers have no bulk delete.
        .with_disable_bulk_delete(true))
}

/// The endpoint, with the bucket in its host name for virtual-host addressing: the client adds the
/// bucket only to paths.
fn bucket_endpoint(config: &S3Config, endpoint: &Url) -> Result<String, StoreError> {
    let invalid = || StoreError::config(format!("{endpoint} is not an http or https URL with a host"));
    let mut endpoint = endpoint.clone();
    if !matches!(endpoint.scheme(), "http" | "https") {
        return Err(invalid());
    }
    let host = endpoint.host_str().ok_or_else(invalid)?.to_owned();
    if config.addressing == Addressing::VirtualHost {
        endpoint.set_host(Some(&format!("{}.{host}", config.bucket))).map_err(|_| invalid())?;
    }
    Ok(endpoint.as_str().trim_end_matches('/').to_owned())
}
