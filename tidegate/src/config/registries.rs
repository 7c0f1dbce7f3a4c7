//! The lists `[[upstream]]` and `[[namespace]]`.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{
    private_url::PrivateUrl,
    section::section,
    setting::words,
    units::{ByteSize, Period},
};

words! {
    /// What a tag that upstream no longer has does to clients.
    pub enum WhenDeletedUpstream {
        /// It is served, stale.
        Serve = "serve",
        /// It is gone here too.
        Gone = "gone",
    }
}

section! {
    /// `[[upstream]]`: a registry that is pulled through.
    pub struct Upstream {
        /// What it is called here.
        pub name: String,
        /// Where it answers, without `/v2/`.
        pub url: Url,
        /// What `?ns=` may say for it. When the configuration does not say: its URL's host, and its name where that is a host name.
        pub hosts: Vec<String>,
        /// The user to log in as.
        pub username: Option<String>,
        /// The file with the password.
        pub password_file: Option<PathBuf>,
        /// The environment variable with the password.
        pub password_env: Option<String>,
        /// How long a checked tag counts as fresh.
        pub tag_ttl: Duration = "1m",
        /// How long after its last check a tag is served when upstream cannot be asked.
        pub stale_if_error: Period = "forever",
        /// What a tag that upstream no longer has does.
        pub when_deleted_upstream: WhenDeletedUpstream = "serve",
        /// Whether a client's `HEAD` of a tag fetches the manifest.
        pub fetch_on_head: bool = "true",
        /// Certificates to trust, in PEM form, besides the usual ones.
        pub ca_file: Option<PathBuf>,
        /// The proxy to reach it through.
        pub proxy: Option<PrivateUrl>,
        /// Whether redirects and realms may lead to private, link-local and loopback addresses.
        pub allow_private: bool = "false",
        /// Hosts that may issue tokens, besides those of the same domain.
        pub realms: Vec<String>,
        /// Whether it is never asked.
        pub offline: bool = "false",
        /// How long connecting may take.
        pub connect_timeout: Duration = "5s",
        /// How long it may send nothing in the middle of an answer.
        pub read_timeout: Duration = "30s",
        /// How long an answer about a manifest, tag or blob's presence may take, tokens and retries included.
        pub answer_timeout: Duration = "8s",
        /// After how many failures in a row it is left alone.
        pub breaker_failures: u32 = "5",
        /// For how long it is then left alone.
        pub breaker_open_for: Duration = "10s",
        /// How much of its rate limit is kept for requests that a client waits for. 0: none.
        pub ratelimit_reserve: u64 = "0",
        /// The largest manifest taken from it.
        pub max_manifest_bytes: ByteSize = "4MiB",
    }
    resolved {
        /// The user and password, read.
        pub credentials: Option<Credentials>,
        /// What `ca_file` holds.
        pub ca_pem: Option<Vec<u8>>,
    }
}

/// How an upstream is logged in to.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password or access token.
    pub password: SecretString,
}

words! {
    /// What is fetched ahead of clients.
    pub enum Prefetch {
        /// Nothing.
        None = "none",
        /// The images of the platforms that are wanted.
        Image = "image",
        /// Every image of an index.
        All = "all",
    }
}

section! {
    /// `[[namespace]]`: a prefix of repository names, and where they come from.
    pub struct Namespace {
        /// Whole leading segments of a repository name; empty for the root default.
        pub prefix: String,
        /// The upstream's name. Absent: a namespace of one's own.
        pub upstream: Option<String>,
        /// Globs over the upstream's repository names that may be pulled. Empty: all.
        pub include: Vec<String>,
        /// Globs over those that may not.
        pub exclude: Vec<String>,
        /// What is fetched ahead of clients.
        pub prefetch: Prefetch = "image",
        /// Platforms to fetch ahead. Empty: those that clients have asked for.
        pub platforms: Vec<String>,
        /// Globs over tags that are never checked again.
        pub immutable_tags: Vec<String>,
    }
}
