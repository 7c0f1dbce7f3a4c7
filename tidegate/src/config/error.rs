//! Errors in a configuration: the location, the key, what is wrong and what is expected.

use std::{fmt, path::Path, sync::Arc};

use serde::de::{Expected, Unexpected};

/// Where a value is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A configuration file as a whole.
    File(Arc<Path>),
    /// A line of a configuration file. The first line is 1.
    Line(Arc<Path>, usize),
    /// An environment variable.
    Variable(String),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
    /// Nowhere: the value is a default.
    Default,
}

impl fmt::Display for Location {
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

/// An invalid configuration. It is displayed as one line: `FILE:LINE: what is wrong`, or the variable or flag in place
/// of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    location: Option<Location>,
    key: Option<String>,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// The key has an invalid value.
    Value { found: String, expected: String },
    /// The key has a value that refers to something invalid.
    Reference(String),
    /// Any other.
    Other(String),
}

impl ConfigError {
    /// An error at a location. The message stands for itself.
    pub(super) fn new(location: &Location, message: impl Into<String>) -> Self {
        Self::from(Problem::Other(message.into())).at(location)
    }

    /// The error that `name`, a `kind` of name, is not among `known`.
    pub(super) fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let suggestion = suggestion(name, known);
        Self::from(Problem::Other(format!("unknown {kind} `{name}`{suggestion}")))
    }

    /// This error with its location, unless it has one.
    pub(super) fn at(mut self, location: &Location) -> Self {
        self.0.location.get_or_insert_with(|| location.clone());
        self
    }

    /// This error with the key that it is about, unless it has one.
    pub(super) fn of_key(mut self, key: &str) -> Self {
        self.0.key.get_or_insert_with(|| key.to_owned());
        self
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Details { location: None, key: None, problem }))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { location, key, problem } = &*self.0;
        let key = key.as_deref().unwrap_or("value");
        write!(out, "{}: ", location.as_ref().unwrap_or(&Location::Default))?;
        match problem {
            Problem::Value { found, expected } => write!(out, "`{key}` is {found}, but must be {expected}"),
            Problem::Reference(message) => write!(out, "`{key}`: {message}"),
            Problem::Other(message) => out.write_str(message),
        }
    }
}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Problem::Reference(message.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Problem::Value { found: describe(found), expected: in_words(&expected.to_string()) }.into()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::invalid_value(Unexpected::Str(variant), &one_of(expected).as_str())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected.iter().copied())
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::Other(format!("the key `{field}` is missing")).into()
    }
}

/// The expectation of an enum.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("one of {}", quoted.join(", "))
}

/// A value for an error message. A URL that may contain a password is not repeated.
fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) if text.contains("://") && text.contains(['@', '?']) => {
            "a URL that is not shown because it may contain a password".to_owned()
        }
        Unexpected::Str(text) if text.chars().count() > 80 => "a long text".to_owned(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// An expectation of serde in the words of the reference.
fn in_words(expected: &str) -> String {
    match expected {
        "a string" => "a text",
        "a boolean" => "true or false",
        "u64" | "usize" => "a whole number that is not negative",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from 0 to 2147483647",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        other if other.starts_with("a nonzero ") => "a whole number more than 0",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
    .to_owned()
}

/// A hint at the known name that is most similar to `name`, if any is similar at all.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let similarity = |known| match strsim::osa_distance(name, known) {
        0 | 1 => (1.0, known),
        _ => (strsim::jaro_winkler(name, known), known),
    };
    let nearest = known.into_iter().map(similarity).max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((similarity, known)) if similarity > 0.7 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    }
}
