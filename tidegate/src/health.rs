//! Asks a running process whether it is ready, for health checks of containers that have no other client in them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use crate::{banner::reachable, config::Settings};

/// How long the process has for its answer: more than its own checks may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A check that failed, as `/readyz` says it.
#[derive(Deserialize)]
struct Failure {
    check: String,
    error: String,
}

/// Where a process with this configuration says whether it is ready.
///
/// # Errors
/// It listens on a port that is not known before.
pub fn url(settings: &Settings) -> anyhow::Result<Url> {
    let listen = settings.api.internal_listen;
    if listen.port() == 0 {
        bail!("{}: the port is picked when the process starts: use --url", settings.listen_written.internal);
    }
    Ok(Url::parse(&format!("http://{}/readyz", reachable(listen)))?)
}

/// Asks `url`. Whatever is not 200 is an error.
///
/// # Errors
/// One sentence: there was no answer, or what it said.
pub async fn ask(url: &Url) -> anyhow::Result<()> {
    // The provider is the process's; a second client in one process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE).build()?;
    let answer = client.get(url.clone()).send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    bail!("{url} answered {}{}", status.as_u16(), why(&answer.text().await.unwrap_or_default()))
}

/// What an answer of `/readyz` says is wrong; nothing for any other.
fn why(body: &str) -> String {
    let failures: Vec<Failure> = serde_json::from_str(body).unwrap_or_default();
    let said = failures.iter().map(|failure| format!(": {}: {}", failure.check, failure.error));
    said.collect::<String>().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Common, Mode},
        config,
    };

    #[test]
    fn the_process_is_asked_where_it_listens() {
        let asked = |address: &str| {
            let flags = Common { internal_listen: Some(address.parse().unwrap()), ..Common::default() };
            url(&config::load(&flags, Mode::Health, std::iter::empty()).unwrap())
        };
        assert_eq!(asked("10.0.0.1:5100").unwrap().as_str(), "http://10.0.0.1:5100/readyz");
        assert_eq!(asked("0.0.0.0:5100").unwrap().as_str(), "http://127.0.0.1:5100/readyz");
        assert_eq!(asked("[::]:5100").unwrap().as_str(), "http://[::1]:5100/readyz");
        let unknown = asked("127.0.0.1:0").unwrap_err().to_string();
        assert_eq!(unknown, "--internal-listen: the port is picked when the process starts: use --url");
    }

    #[test]
    fn what_failed_is_said_in_one_line() {
        let body = r#"[{"check":"database","error":"gone"},{"check":"storage","error":"a\nb"}]"#;
        assert_eq!(why(body), ": database: gone: storage: a b");
        assert_eq!(why("<html>"), "");
    }
}
