//! `tidegate health` beside a running process.

use tidegate_tests::{
    process::{TidegateProcess, tidegate},
    tool::Ran,
};

async fn health(arguments: [&str; 2]) -> Ran {
    let ran = tidegate().arg("health").args(arguments).run().await;
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.matches('\n').count() <= 1, "one line: {}", ran.stderr);
    ran
}

/// Asserts that it ends with 1, and returns what it says.
async fn unhealthy(arguments: [&str; 2]) -> String {
    let ran = health(arguments).await;
    assert_eq!(ran.status.and_then(|status| status.code()), Some(1), "{ran:?}");
    ran.stderr
}

#[tokio::test]
async fn health_is_what_the_process_says_of_itself() {
    let mut process = TidegateProcess::start(["--upstream", "up=http://127.0.0.1:9"]).await;
    let internal = process.internal().to_string();
    for arguments in [["--internal-listen", &internal], ["--url", &format!("http://{internal}/livez")]] {
        let ran = health(arguments).await;
        assert!(ran.succeeded() && ran.stderr.is_empty(), "{ran:?}");
    }
    let other = format!("{}/nowhere", process.url());
    assert_eq!(unhealthy(["--url", &other]).await, format!("tidegate: {other} responded with 404\n"));

    // A folder that was removed is created again; a file in its place is a failure.
    let partial = process.data_dir().join("partial");
    std::fs::remove_dir_all(&partial).unwrap();
    std::fs::write(&partial, "").unwrap();
    let said = unhealthy(["--internal-listen", &internal]).await;
    let expected = format!("tidegate: http://{internal}/readyz responded with 503: storage: failed to ");
    assert!(said.starts_with(&expected), "{said}");

    process.kill9();
    process.wait().await;
    let said = unhealthy(["--internal-listen", &internal]).await;
    let expected = format!("tidegate: http://{internal}/readyz does not respond: ");
    assert!(said.starts_with(&expected) && said.contains("refused"), "{said}");
}
