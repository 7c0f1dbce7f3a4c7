//! `tidegate health`: checks the readiness of a running process, for containers without another HTTP client.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use crate::{banner::reachable, config::Settings};

/// The time limit of the check: longer than that of the process's own checks.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A failed check in a response of `/readyz`.
#[derive(Deserialize)]
struct FailedCheck {
    check: String,
    error: String,
}

/// The URL of the readiness check of a process with this configuration.
///
/// # Errors
/// The process selects a free port when it starts.
pub fn url(settings: &Settings) -> anyhow::Result<Url> {
    let listen = settings.api.server.internal_listen;
    if listen.port() == 0 {
        let location = settings.location("api", "internal_listen");
        bail!("{location}: the port is selected when the process starts: use --url");
    }
    Ok(Url::parse(&format!("http://{}/readyz", reachable(listen)))?)
}

/// Requests `url`. Any status but 200 is an error.
///
/// # Errors
/// One line: no response, or the failed checks.
pub async fn check(url: &Url) -> anyhow::Result<()> {
    // The provider is global; a second client in one process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT).build()?;
    let response = client.get(url.clone()).send().await.map_err(reqwest::Error::without_url);
    let response = response.with_context(|| format!("{url} does not respond"))?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    bail!("{url} responded with {}{}", status.as_u16(), failures(&response.text().await.unwrap_or_default()))
}

/// The failed checks in a response of `/readyz`. Empty for any other body.
fn failures(body: &str) -> String {
    let failed: Vec<FailedCheck> = serde_json::from_str(body).unwrap_or_default();
    let failures = failed.iter().map(|failed| format!(": {}: {}", failed.check, failed.error));
    failures.collect::<String>().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Flags, Mode},
        config,
    };

    #[test]
    fn the_url_is_that_of_the_internal_listener() {
        let of = |address: &str| {
            let flags = Flags { internal_listen: Some(address.parse().unwrap()), ..Flags::default() };
            url(&config::load(&flags.overrides(Mode::Health), std::iter::empty()).unwrap())
        };
        assert_eq!(of("10.0.0.1:5100").unwrap().as_str(), "http://10.0.0.1:5100/readyz");
        assert_eq!(of("0.0.0.0:5100").unwrap().as_str(), "http://127.0.0.1:5100/readyz");
        assert_eq!(of("[::]:5100").unwrap().as_str(), "http://[::1]:5100/readyz");
        let unknown = of("127.0.0.1:0").unwrap_err().to_string();
        assert_eq!(unknown, "--internal-listen: the port is selected when the process starts: use --url");
    }

    #[test]
    fn failed_checks_are_shown_on_one_line() {
        let body = r#"[{"check":"database","error":"gone"},{"check":"storage","error":"a\nb"}]"#;
        assert_eq!(failures(body), ": database: gone: storage: a b");
        assert_eq!(failures("<html>"), "");
    }
}
