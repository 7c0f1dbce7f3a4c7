//! What is wrong with a configuration, and where: one sentence that begins with the place.

use std::{fmt, path::Path, sync::Arc};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A configuration file as a whole.
    File(Arc<Path>),
    /// A line of a configuration file; the first line is 1.
    Line(Arc<Path>, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
    /// Nowhere: the value is a default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "{}", path.display()),
            Self::Line(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(name) => out.write_str(name),
            Self::Default => out.write_str("built-in defaults"),
        }
    }
}

/// A configuration that cannot be used. Its text is one sentence: `FILE:LINE: what is wrong`, or the variable or
/// flag in place of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where the value at fault was written.
    pub place: Place,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The configuration file cannot be read.
    #[error("the configuration file cannot be read: {0}")]
    Unreadable(String),
    /// The text is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key, section or variable that nothing reads.
    #[error("unknown {kind} `{name}`{}", nearest(.known.as_deref()))]
    Unknown {
        /// What it is: `key` or `variable`.
        kind: &'static str,
        /// As it was written.
        name: String,
        /// The known one that is most like it.
        known: Option<String>,
    },
    /// A key that has no default was left out.
    #[error("the key `{0}` is missing")]
    Missing(&'static str),
    /// A value that cannot be read as what its key wants.
    #[error("`{key}` is {found}, but must be {expected}")]
    Value {
        /// The key.
        key: String,
        /// What stands there, in words that can be printed.
        found: String,
        /// What must stand there.
        expected: String,
    },
    /// A file that a key names cannot be used.
    #[error("`{key}`: the file {file} {reason}")]
    File {
        /// The key that names the file.
        key: &'static str,
        /// The file.
        file: String,
        /// What is wrong with the file.
        reason: String,
    },
    /// Two entries of a list claim the same thing.
    #[error("{what} `{name}` stands here and at {first}")]
    Twice {
        /// What is claimed twice.
        what: &'static str,
        /// The one that is claimed twice.
        name: String,
        /// Where it was claimed first.
        first: Place,
    },
    /// A namespace names an upstream that is not configured.
    #[error("the namespace `{prefix}` names the upstream `{upstream}`, which is not configured{}", nearest(.known.as_deref()))]
    NoSuchUpstream {
        /// The namespace's prefix.
        prefix: String,
        /// The upstream's name as written there.
        upstream: String,
        /// The configured upstream that is most like it.
        known: Option<String>,
    },
    /// Values that are right one by one, and cannot be used together.
    #[error("{0}")]
    Conflict(String),
}

impl Problem {
    /// This problem, at `place`.
    pub fn at(self, place: &Place) -> ConfigError {
        ConfigError { place: place.clone(), problem: self }
    }
}

fn nearest(known: Option<&str>) -> String {
    known.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The candidate that is most like `written`, when one is like it at all.
pub(crate) fn most_like<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(written, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate.to_owned())
}
