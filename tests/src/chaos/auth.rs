//! Who may read: challenges, the token endpoint, tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::http::Request;
use super::resource::Resource;
use crate::image::sha256;

/// The service that challenges name.
const SERVICE: &str = "chaos";

/// The required authentication.
#[derive(Clone, Debug, Default)]
pub(super) enum Scheme {
    /// Not at all.
    #[default]
    Open,
    /// User name and password with every request.
    Basic(Credentials),
    /// A token, which costs user name and password, or nothing.
    Bearer(Option<Credentials>),
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl Credentials {
    /// Reads an `Authorization: Basic` value.
    fn from_basic(header: &str) -> Option<Self> {
        let decoded = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self { username: username.to_owned(), password: password.to_owned() })
    }
}

/// What a token is good for.
#[derive(Debug)]
struct Grant {
    repositories: Vec<String>,
    until: Instant,
}

/// The tokens that were issued. Two upstreams may share them: one issues, the other serves.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<String, Grant>>);

/// The doorkeeper of one upstream.
#[derive(Debug, Default)]
pub(super) struct Auth {
    pub(super) scheme: Scheme,
    pub(super) realm: Option<String>,
    pub(super) expires_in: Option<u64>,
    pub(super) tokens: Arc<Tokens>,
}

impl Auth {
    /// The refusal of a request that may not pass.
    pub(super) fn refusal(&self, request: &Request, path: &str, host: &str) -> Option<Resource> {
        let given = request.header("authorization");
        let challenge = match &self.scheme {
            Scheme::Open => return None,
            Scheme::Basic(right) => {
                if given.and_then(Credentials::from_basic).as_ref() == Some(right) {
                    return None;
                }
                format!("Basic realm=\"{SERVICE}\"")
            }
            Scheme::Bearer(_) => {
                let repository = repository(path);
                let why = match given.and_then(|value| value.strip_prefix("Bearer ")) {
                    None => "",
                    // No fault, no refusal.
                    Some(token) => self.tokens.fault(token, repository)?,
                };
                let realm = self.realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
                let scope =
                    repository.map(|name| format!(",scope=\"repository:{name}:pull\"")).unwrap_or_default();
                format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}{why}")
            }
        };
        let mut refusal = Resource::error(401, "UNAUTHORIZED", "authentication required");
        refusal.headers.push(("WWW-Authenticate".to_owned(), challenge));
        Some(refusal)
    }

    /// The token endpoint: `GET` with Basic credentials, or `POST` of an OAuth 2 password grant.
    pub(super) fn token(&self, request: &Request) -> Resource {
        let Scheme::Bearer(right) = &self.scheme else {
            return Resource::error(404, "UNSUPPORTED", "no such route");
        };
        let form = if request.method == "POST" { &request.body[..] } else { request.query.as_bytes() };
        let mut scopes = Vec::new();
        let mut posted = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(form) {
            match &*name {
                "scope" => scopes.extend(value.split(' ').map(str::to_owned)),
                _ => drop(posted.insert(name.into_owned(), value.into_owned())),
            }
        }
        let given = match request.method.as_str() {
            "POST" => posted
                .remove("username")
                .zip(posted.remove("password"))
                .map(|(username, password)| Credentials { username, password }),
            _ => request.header("authorization").and_then(Credentials::from_basic),
        };
        if right.is_some() && *right != given {
            return Resource::error(401, "UNAUTHORIZED", "incorrect username or password");
        }
        let lifetime = self.expires_in.unwrap_or(300);
        let token = self.tokens.issue(&scopes, Duration::from_secs(lifetime));
        let body = serde_json::json!({ "token": token, "access_token": token, "expires_in": lifetime });
        Resource::json(200, body.to_string())
    }
}

impl Tokens {
    fn issue(&self, scopes: &[String], lifetime: Duration) -> String {
        let repositories = scopes
            .iter()
            .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'))
            .filter(|(_, actions)| actions.split(',').any(|action| action == "pull" || action == "*"))
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut grants = self.0.lock().unwrap();
        // The address distinguishes the tokens of two upstreams, the count those of one.
        let token = sha256(format!("{self:p} {} {:?}", grants.len(), Instant::now()).as_bytes());
        let token = token.replace(':', "-");
        grants.insert(token.clone(), Grant { repositories, until: Instant::now() + lifetime });
        token
    }

    /// What is wrong with a token for this repository, as a part of a challenge (RFC 6750, section 3.1).
    fn fault(&self, token: &str, repository: Option<&str>) -> Option<&'static str> {
        let grants = self.0.lock().unwrap();
        match grants.get(token) {
            Some(grant) if grant.until > Instant::now() => {
                let covers =
                    repository.is_none_or(|name| grant.repositories.iter().any(|other| other == name));
                (!covers).then_some(",error=\"insufficient_scope\"")
            }
            _ => Some(",error=\"invalid_token\""),
        }
    }

    /// Makes every token that was issued invalid.
    pub(super) fn revoke(&self) {
        for grant in self.0.lock().unwrap().values_mut() {
            grant.until = Instant::now();
        }
    }
}

/// The repository that a path is about.
fn repository(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let end = ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| rest.rfind(part))?;
    Some(&rest[..end])
}
