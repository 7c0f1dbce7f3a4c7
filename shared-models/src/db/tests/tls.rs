//! TLS to PostgreSQL, with generated certificates.

use std::{fs, sync::OnceLock, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::Bool};
use diesel_async::RunQueryDsl;
use futures::FutureExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{
    db::{Db, DbConfig, DbError, on},
    migrate::{expected_version, migrate},
    test_postgres::TestPostgres,
};

#[derive(QueryableByName)]
struct Encrypted {
    #[diesel(sql_type = Bool)]
    ssl: bool,
}

/// A server whose certificate is valid for `localhost`, and not for its address.
struct TlsServer {
    server: TestPostgres,
    folder: TempDir,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server() -> &'static TlsServer {
    static SERVER: OnceLock<TlsServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let (ours, other) = (authority("ours"), authority("other"));
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        let server = TestPostgres::start_with_tls(&leaf.pem(), &key.serialize_pem()).unwrap();
        server.create_database("x").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, pem) in [("ours", ours.pem()), ("other", other.pem()), ("leaf", leaf.pem())] {
            fs::write(folder.path().join(name), pem).unwrap();
        }
        TlsServer { server, folder }
    })
}

impl TlsServer {
    fn config(&self, host: &str, query: &str) -> DbConfig {
        let query = query.replace("DIR", self.folder.path().to_str().unwrap());
        config(format!("postgres://tidegate@{host}:{}/x{query}", self.server.port()))
    }
}

fn config(url: String) -> DbConfig {
    DbConfig { url, max_connections: 1, wait: Duration::from_secs(5), prepared_statements: true }
}

/// Whether the connection is encrypted, or why there is none.
async fn encrypted(config: &DbConfig) -> Result<bool, DbError> {
    let db = Db::connect(config).await?;
    let query = sql_query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    db.read(move |conn| async move { Ok(on!(conn, |c| query.get_result::<Encrypted>(c))?.ssl) }.boxed()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_has_the_meaning_of_libpq() {
    let server = server();
    for (host, query, expected) in [
        ("localhost", "", true),
        ("localhost", "?sslmode=disable", false),
        ("localhost", "?sslmode=prefer", true),
        ("127.0.0.1", "?sslmode=require", true),
        ("127.0.0.1", "?sslmode=require&sslrootcert=DIR/ours", true),
        ("127.0.0.1", "?sslmode=verify-ca&sslrootcert=DIR/ours", true),
        ("localhost", "?sslmode=verify-full&sslrootcert=DIR/ours", true),
        ("localhost", "?sslmode=verify-full&sslrootcert=DIR/leaf", true),
    ] {
        let found = encrypted(&server.config(host, query)).await;
        assert_eq!(
            found.unwrap_or_else(|error| panic!("{host} {query}: {error}")),
            expected,
            "{host} {query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_or_for_another_name_is_refused() {
    let server = server();
    for (host, query, reason) in [
        ("localhost", "?sslmode=verify-full&sslrootcert=DIR/other", "UnknownIssuer"),
        ("localhost", "?sslmode=verify-ca&sslrootcert=DIR/other", "UnknownIssuer"),
        ("localhost", "?sslmode=require&sslrootcert=DIR/other", "UnknownIssuer"),
        ("localhost", "?sslmode=verify-full", "UnknownIssuer"),
        ("127.0.0.1", "?sslmode=verify-full&sslrootcert=DIR/ours", "not valid for name"),
        ("127.0.0.1", "?sslmode=verify-full&sslrootcert=DIR/leaf", "not valid for name"),
    ] {
        match encrypted(&server.config(host, query)).await {
            Err(DbError::Unavailable(text)) => {
                assert!(text.as_str().contains(reason), "{host} {query}: {text}")
            }
            other => panic!("{host} {query}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_read_are_a_misconfiguration() {
    let server = server();
    fs::write(server.folder.path().join("empty"), "nothing").unwrap();
    for query in ["?sslmode=verify-full&sslrootcert=DIR/missing", "?sslmode=verify-ca&sslrootcert=DIR/empty"]
    {
        let refused = Db::connect(&server.config("localhost", query)).await;
        assert!(matches!(refused, Err(DbError::Config(_))), "{query}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_used_only_if_tls_is_not_required() {
    let plain = super::postgres_config().url;
    for query in ["", "?sslmode=prefer", "?sslmode=disable"] {
        assert!(!encrypted(&config(format!("{plain}{query}"))).await.unwrap(), "{query}");
    }
    let refused = encrypted(&config(format!("{plain}?sslmode=require"))).await;
    assert!(matches!(refused, Err(DbError::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_use_tls() {
    let server = server();
    server.server.create_database("migrated").unwrap();
    let mut config = server.config("localhost", "?sslmode=verify-full&sslrootcert=DIR/ours");
    config.url = config.url.replace("/x?", "/migrated?");
    assert_eq!(migrate(&config).await.unwrap().last().unwrap(), expected_version());
    assert!(encrypted(&config).await.unwrap());
}
