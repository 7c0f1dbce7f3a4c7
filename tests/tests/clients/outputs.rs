//! Outputs that cannot be written.

use std::{fs::File, process::Stdio, time::Duration};

use tempfile::TempDir;
use tidegate_tests::{assert_eventually, http_client::http_client, process::program};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_full_disk_behind_the_outputs_does_not_prevent_the_start() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let dir = TempDir::with_prefix("tdg-").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut process = tokio::process::Command::new(program())
        .args(["--listen", &format!("127.0.0.1:{port}"), "--internal-listen", "127.0.0.1:0"])
        .args(["--upstream", "local=http://127.0.0.1:1"])
        .arg("--data-dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(full())
        .stderr(full())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}/v2/");
    assert_eventually!(http_client().get(&url).send().await.is_ok_and(|answer| answer.status() == 200));
    assert!(tokio::time::timeout(Duration::from_millis(100), process.wait()).await.is_err(), "it runs");
}
