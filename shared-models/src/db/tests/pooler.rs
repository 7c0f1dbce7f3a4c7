//! Queries through PgBouncer, which assigns a session per transaction.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{check, digest, image, links_manifest, repository, tag};
use crate::{
    db::{Db, DbConfig, jobs, links, manifests, record, tags},
    migrate::migrate,
};
use oci_types::Millis;

struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A pooler in front of a server on `port`, with few sessions for many clients.
fn pooler(port: u16) -> Pooler {
    let folder = tempfile::tempdir().unwrap();
    let own = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={port} user=tidegate\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {own}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
         default_pool_size = 3\nmax_client_conn = 100\n"
    );
    let file = folder.path().join("pgbouncer.ini");
    fs::write(&file, settings).unwrap();
    // PgBouncer refuses to run as root. It then runs as `postgres`, its user on Debian, which must
    // be able to read the file.
    let mut command = Command::new(if Path::new("/usr/sbin/pgbouncer").exists() {
        "/usr/sbin/pgbouncer"
    } else {
        "pgbouncer"
    });
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        let owned = Command::new("chown").args(["-R", "postgres:"]).arg(folder.path()).status().unwrap();
        assert!(owned.success());
        command.args(["-u", "postgres"]);
    }
    let child = command
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs `pgbouncer`");
    Pooler { child, port: own, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prepared_statements_a_pooler_that_changes_sessions_is_fine() {
    let direct = super::postgres_config();
    let (user, rest) = direct.url.rsplit_once(':').unwrap();
    let (port, database) = rest.split_once('/').unwrap();
    let pooler = pooler(port.parse().unwrap());
    let config = DbConfig {
        url: format!("{user}:{}/{database}", pooler.port),
        max_connections: 20,
        wait: Duration::from_secs(10),
        prepared_statements: false,
    };
    let started = Instant::now();
    let handles = [Db::connect(&config).await.unwrap(), Db::connect(&config).await.unwrap()];
    while let Err(error) = handles[0].ping().await {
        assert!(started.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let migrations = futures::future::join_all((0..3).map(|_| migrate(&config))).await;
    let applied: Vec<usize> = migrations.into_iter().map(|done| done.unwrap().len()).collect();
    assert_eq!(applied.iter().filter(|count| **count > 0).count(), 1, "one of them migrates: {applied:?}");

    let work = |number: usize| {
        let db = handles[number % 2].clone();
        async move {
            let image = image(&format!("config {number}"), &["shared", &format!("own {number}")]);
            let repository = repository(&format!("x{}", number % 5));
            let check = check("t", 1);
            record::manifest(&db, &repository, &image, Some(&check), Millis(1)).await.unwrap();
            assert!(manifests::load(&db, &image.digest).await.unwrap().is_some());
            assert!(
                links::blob(&db, &repository.repository.key(), &digest("shared")).await.unwrap().is_some()
            );
            assert!(tags::find(&db, &repository.repository.key(), &tag("t")).await.unwrap().is_some());
            jobs::enqueue(&db, "kind", &number.to_string(), "{}", Millis(1)).await.unwrap();
            jobs::claim(&db, "kind", "worker", Duration::from_secs(60), Millis(2)).await.unwrap().unwrap().id
        }
    };
    let all = futures::future::join_all((0..60).map(|number| tokio::spawn(work(number)))).await;
    let claimed: std::collections::BTreeSet<_> = all.into_iter().map(|id| id.unwrap()).collect();
    assert_eq!(claimed.len(), 60, "each job was claimed once");
    assert!(links_manifest(&handles[0], "x1", &image("config 1", &["shared", "own 1"]).digest).await);
}
