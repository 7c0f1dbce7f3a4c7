//! The sections `[log]`, `[api]`, `[content]`, `[database]` and `[tasks]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use super::{private_url::PrivateUrl, section::section, setting::words, units::ByteSize};

words! {
    /// How log lines are written.
    pub enum LogFormat {
        /// One readable line.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

section! {
    /// `[log]`
    pub struct Log {
        /// How a line is written.
        pub format: LogFormat = "text",
        /// Which lines are written: directives of tracing-subscriber's `EnvFilter`.
        pub filter: String = "info,actix_server=warn,actix_http=off",
    }
}

section! {
    /// `[api]`: registry-api.
    pub struct Api {
        /// Where clients are listened for.
        pub listen: SocketAddr = "127.0.0.1:5000",
        /// Health, metrics and the internal API; in serve mode of both services.
        pub internal_listen: SocketAddr = "127.0.0.1:5100",
        /// How clients reach registry-api. Absent: as a request's `Host` says.
        pub public_url: Option<Url>,
        /// Threads that answer requests. Absent: one a processor.
        pub workers: Option<usize>,
        /// The most names one page of `/v2/_catalog` has.
        pub catalog_max: u32 = "1000",
        /// Memory for manifests.
        pub manifest_cache_bytes: ByteSize = "64MiB",
        /// How long a 404 of an upstream is remembered.
        pub negative_ttl: Duration = "10s",
        /// How long a client waits for upstream to check a tag that is here, before it is served what is here.
        pub revalidate_wait: Duration = "2s",
        /// How long a blob that no manifest names stays linked, untouched.
        pub pending_ttl: Duration = "24h",
        /// How long what memory holds may lag behind the database.
        pub cache_max_age: Duration = "5s",
        /// How long requests are still taken after SIGTERM, while `/readyz` says no; in serve mode they are not.
        pub drain_grace: Duration = "5s",
        /// How long requests in flight may go on after that.
        pub shutdown_timeout: Duration = "30s",
    }
}

words! {
    /// Whether a fill goes on when no client waits for it any more.
    pub enum FinishAbandoned {
        /// It always goes on.
        Always = "always",
        /// It goes on when `finish_abandoned_over` percent of it are there.
        Over = "over",
        /// It stops; what is there stays for the next ask.
        Never = "never",
    }
}

words! {
    /// What is done with a range of a blob whose digest is not known to be right yet.
    pub enum UnverifiedRanges {
        /// It is served as it lands, marked as unverified.
        Serve = "serve",
        /// It is held until the digest is known.
        Wait = "wait",
    }
}

section! {
    /// An element of `link_keys`: a key that signs or verifies links to content.
    pub struct LinkKeyFile {
        /// What the key is called in a link.
        pub id: String,
        /// The file with the key, in hexadecimal digits.
        pub file: PathBuf,
    }
    resolved {
        /// The key's bytes in hexadecimal digits, as the file holds them.
        pub secret: SecretString,
    }
}

section! {
    /// `[content]`: content-app.
    pub struct Content {
        /// Where clients are listened for; not used in serve mode.
        pub listen: SocketAddr = "127.0.0.1:5001",
        /// Health, metrics and the internal API; not used in serve mode.
        pub internal_listen: SocketAddr = "127.0.0.1:5101",
        /// How clients reach this node; for registry-api: a load balancer before all nodes.
        pub public_url: Option<Url>,
        /// How the other services reach `internal_listen`.
        pub internal_url: Option<Url>,
        /// This node's name among the nodes. Absent: its internal URL.
        pub node_id: Option<String>,
        /// Threads that answer requests. Absent: one a processor.
        pub workers: Option<usize>,
        /// How long a signed link holds.
        pub link_lifetime: Duration = "20m",
        /// The first signs, all verify. Empty: one is made in the data folder.
        pub link_keys: Vec<LinkKeyFile>,
        /// Whether a fill goes on without clients.
        pub finish_abandoned: FinishAbandoned = "over",
        /// Percent of a blob that must be there for `finish_abandoned = "over"`.
        pub finish_abandoned_over: u8 = "25",
        /// What is done with ranges of a blob that is not verified yet.
        pub unverified_ranges: UnverifiedRanges = "serve",
        /// A range that begins further than this beyond the fill gets a request of its own.
        pub jump_ahead: ByteSize = "8MiB",
        /// What such requests are rounded to.
        pub segment: ByteSize = "8MiB",
        /// What is held back at a blob's end until its digest is known to be right.
        pub hold_back: ByteSize = "64KiB",
        /// How much one read of a stored blob takes.
        pub read_size: ByteSize = "32KiB",
        /// The most fills at a time.
        pub max_fills: usize = "64",
        /// The most fills at a time from one upstream.
        pub max_fills_per_upstream: usize = "32",
        /// The most downloads at a time for one blob, of which one is the fill's own.
        pub max_downloads_per_fill: usize = "16",
        /// Attempts in a row that bring no byte before a fill fails.
        pub fill_attempts: u32 = "6",
        /// The wait before the second attempt; it doubles with each one.
        pub fill_backoff_min: Duration = "100ms",
        /// The longest wait between two attempts.
        pub fill_backoff_max: Duration = "5s",
        /// How long a source that sent wrong bytes is asked last.
        pub set_aside_for: Duration = "10m",
        /// How many bytes may land before it is saved which ones of a partial file are there.
        pub checkpoint_bytes: ByteSize = "8MiB",
        /// When a partial file that nothing has touched is deleted.
        pub partial_max_age: Duration = "7d",
        /// How long requests are still taken after SIGTERM, while `/readyz` says no; in serve mode they are not.
        pub drain_grace: Duration = "5s",
        /// How long streams may go on after that; in serve mode `api.shutdown_timeout` holds.
        pub drain_timeout: Duration = "5m",
        /// How often a node says that it lives; it counts as dead after three times that.
        pub heartbeat: Duration = "5s",
    }
}

section! {
    /// `[database]`
    pub struct Database {
        /// `sqlite://PATH` or `postgres://…`. When the configuration does not say: a file in the data folder.
        pub url: PrivateUrl,
        /// The most connections of this process.
        pub max_connections: usize = "10",
        /// How long a query waits for a connection before it is answered 503.
        pub wait: Duration = "5s",
        /// Whether PostgreSQL may keep statements prepared.
        pub prepared_statements: bool = "true",
    }
}

section! {
    /// `[tasks]`: background tasks.
    pub struct Tasks {
        /// Tasks that run at a time in this process.
        pub workers: usize = "4",
        /// How long a task is another process's after its last sign of life.
        pub lease: Duration = "60s",
        /// Attempts before a task counts as failed.
        pub max_attempts: u16 = "10",
        /// The wait before the second attempt; it doubles with each one.
        pub backoff: Duration = "5s",
        /// The longest wait between two attempts.
        pub backoff_max: Duration = "1h",
    }
}
