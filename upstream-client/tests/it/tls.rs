use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use settings::proxy::ProxySetting;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
};
use upstream_client::{
    Priority::Client, Unobserved, Upstream, UpstreamConfig, UpstreamConfigError, UpstreamError,
};
use url::Url;

use crate::support::{Server, login, reference, reply, repository, upstream};

/// A TLS acceptor for 127.0.0.1 and localhost, and its certificate authority in PEM.
pub(crate) fn acceptor() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

async fn get(config: UpstreamConfig) -> Result<(), UpstreamError> {
    upstream(config).get_manifest(&repository("a"), &reference("t"), Client).await.map(|_| ())
}

#[tokio::test]
async fn an_authority_is_trusted_where_it_is_configured() {
    let (acceptor, authority) = acceptor();
    let server = Server::start_with(Some(acceptor), |_| reply(200).body("{}")).await;
    let mut config = server.config();
    assert!(matches!(get(config.clone()).await, Err(UpstreamError::Unreachable(_))));
    config.ca_pem = Some(authority.into_bytes());
    get(config).await.unwrap();
}

#[tokio::test]
async fn a_redirect_or_a_realm_without_tls_is_refused() {
    let plain = Server::start(|_| reply(200).body("{}")).await;
    let (acceptor, authority) = acceptor();
    let (redirect, realm) = (plain.at("/redirect"), plain.at("/token"));
    let server =
        Server::start_with(Some(acceptor), move |request| match request.target.contains("/realm/") {
            true => reply(401).header("www-authenticate", format!("Bearer realm=\"{realm}\"")),
            false => reply(307).header("location", &redirect),
        })
        .await;
    let mut config = server.config();
    (config.ca_pem, config.allow_private) = (Some(authority.into_bytes()), true);
    (config.credentials, config.realms) = (login("user", "hidden"), vec![plain.url.authority().to_owned()]);
    let upstream = upstream(config);
    for name in ["redirect", "realm"] {
        let refused = upstream.get_manifest(&repository(name), &reference("t"), Client).await;
        assert!(matches!(refused, Err(UpstreamError::InvalidResponse(_))), "{name} {refused:?}");
    }
    assert_eq!(plain.requests().len(), 0);
}

#[tokio::test]
async fn the_address_of_an_upstream_is_known_with_tls_too() {
    let (acceptor, authority) = acceptor();
    let other = Server::start_with(Some(acceptor.clone()), |_| reply(200).body("{}")).await;
    let location = other.at("/x");
    let server = Server::start_with(Some(acceptor), move |_| reply(307).header("location", &location)).await;
    let mut config = server.config();
    config.url.set_host(Some("localhost")).unwrap();
    config.ca_pem = Some(authority.into_bytes());
    get(config).await.unwrap();
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn an_invalid_configuration_names_the_setting() {
    let checked = |change: fn(&mut UpstreamConfig)| {
        let mut config = UpstreamConfig::new("test", Url::parse("https://registry.example.com").unwrap());
        change(&mut config);
        Upstream::new(config, Arc::new(Unobserved)).map(|_| ())
    };
    assert_eq!(checked(|_| {}), Ok(()));
    for url in ["ftp://host", "https://user:hidden@host", "https://host?x=1", "https://host#x"] {
        let mut config = UpstreamConfig::new("test", Url::parse(url).unwrap());
        config.credentials = login("user", "hidden");
        assert!(!format!("{:?}", config.credentials).contains("hidden"));
        assert_eq!(
            Upstream::new(config, Arc::new(Unobserved)).unwrap_err(),
            UpstreamConfigError::Url,
            "{url}"
        );
    }
    let realm = checked(|config| config.realms = vec!["https://login.test/".to_owned()]);
    assert_eq!(realm, Err(UpstreamConfigError::Realm));
    assert_eq!(checked(|config| config.credentials = login("a:b", "c")), Err(UpstreamConfigError::Username));
    let authorities = checked(|config| config.ca_pem = Some(b"nothing".to_vec()));
    assert!(matches!(authorities, Err(UpstreamConfigError::Authorities(_))), "{authorities:?}");
    let proxy = checked(|config| config.proxy = ProxySetting::Url(Url::parse("data:x").unwrap()));
    assert!(proxy.is_err(), "{proxy:?}");
}
