//! A process that cannot start prints one line with the location and the cause.

use std::net::TcpListener;
use std::path::Path;

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
use tidegate_tests::process::tidegate;

/// Runs the command with an invalid configuration, and returns the line that it prints, without `tidegate: `.
async fn refusal(file: &Path, toml: &str, mode: &str) -> String {
    std::fs::write(file, toml).unwrap();
    let data = file.with_file_name("data");
    let ran = tidegate().arg(mode).arg("--config").arg(file).arg("--data-dir").arg(&data).run().await;
    assert_eq!(ran.status.and_then(|status| status.code()), Some(1), "{ran:?}");
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr.matches('\n').count(), 1, "one line: {}", ran.stderr);
    assert!(!data.exists(), "an invalid configuration leaves no files");
    ran.stderr.strip_prefix("tidegate: ").and_then(|line| line.strip_suffix('\n')).unwrap().to_owned()
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    for mode in ["serve", "registry-api", "content-app", "migrate", "check-config"] {
        let error = refusal(&file, "[api]\nlisten = '127.0.0.1:0'\nlistn = '127.0.0.1:0'\n", mode).await;
        let expected = format!("{}:3: unknown key `listn`; did you mean `listen`?", file.display());
        assert_eq!(error, expected, "{mode}");
    }
}

#[tokio::test]
async fn an_unspecified_address_is_no_url_for_clients() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    let toml = "[content]\nlisten = '0.0.0.0:0'\ninternal_listen = '127.0.0.1:0'\n";
    let error = refusal(&file, toml, "content-app").await;
    assert!(error.starts_with(&format!("{}:2: ", file.display())), "{error}");
    assert!(error.contains("set `content.public_url`"), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let run = async |mode: &str| {
        let tidegate = tidegate().arg(mode).arg("--data-dir").arg(&data);
        tidegate.arg("--listen").arg("127.0.0.1:0").arg("--internal-listen").arg("127.0.0.1:0").run().await
    };
    assert_eq!(run("migrate").await.status.and_then(|status| status.code()), Some(0));
    let mut database = SqliteConnection::establish(data.join("tidegate.db").to_str().unwrap()).unwrap();
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99999')";
    diesel::sql_query(newer).execute(&mut database).unwrap();
    for mode in ["serve", "migrate"] {
        let ran = run(mode).await;
        assert_eq!(ran.status.and_then(|status| status.code()), Some(1), "{mode}: {ran:?}");
        assert_eq!(ran.stderr.matches('\n').count(), 1, "{mode}: {}", ran.stderr);
        assert!(ran.stderr.contains("99999") && ran.stderr.contains("newer"), "{mode}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (key, other) in [("listen", "internal_listen"), ("internal_listen", "listen")] {
        let toml = format!("[api]\n{other} = '127.0.0.1:0'\n{key} = '{address}'\n");
        let error = refusal(&file, &toml, "serve").await;
        assert!(error.starts_with(&format!("{}:3: ", file.display())), "{error}");
        assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
    }
}
