//! A configuration before it has types: what was written, and where.

use std::{borrow::Cow, collections::BTreeMap, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, Problem};

/// A value and the place where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a TOML document can hold, and the text of a variable or flag, whose type only its key knows.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Raw(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// A number with a fraction, a date: no key wants one.
    Other(&'static str),
}

/// The keys of one table.
pub(crate) type Table = BTreeMap<String, Node>;

impl Node {
    /// Text whose type its key knows.
    pub(crate) fn raw(place: &Place, text: impl Into<String>) -> Self {
        Self { place: place.clone(), value: Value::Raw(text.into()) }
    }

    /// A list.
    pub(crate) fn list(place: &Place, items: Vec<Node>) -> Self {
        Self { place: place.clone(), value: Value::List(items) }
    }

    /// The text, where it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Raw(text) | Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// This node with the text of a variable read as a TOML value; any other node as it is.
    ///
    /// # Errors
    /// [`Problem::Syntax`].
    pub(crate) fn typed(&self) -> Result<Cow<'_, Self>, ConfigError> {
        let Value::Raw(text) = &self.value else { return Ok(Cow::Borrowed(self)) };
        let parsed = DeValue::parse(text)
            .map_err(|error| Problem::Syntax(one_line(error.message())).at(&self.place))?;
        let place = |_| self.place.clone();
        Ok(Cow::Owned(Self { place: self.place.clone(), value: convert(parsed.get_ref(), &place) }))
    }

    /// What stands here, in words.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Raw(text) | Value::Text(text) if text.contains("://") && text.contains(['@', '?']) => {
                "a URL that is not shown because it may hold a password".to_owned()
            }
            Value::Raw(text) | Value::Text(text) if text.chars().count() > 80 => "a long text".to_owned(),
            Value::Raw(text) | Value::Text(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(name) => format!("a {name}"),
        }
    }

    /// The error that this value of `key` is not what is wanted.
    pub(crate) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        Problem::Value { key: key.to_owned(), found: self.found(), expected: expected.to_owned() }
            .at(&self.place)
    }
}

/// Parses a document; every node says its line in the file `path`.
///
/// # Errors
/// [`Problem::Syntax`].
pub(crate) fn parse(document: &str, path: &Arc<Path>) -> Result<Table, ConfigError> {
    parse_at(document, |offset| Place::Line(Arc::clone(path), line_of(document, offset)))
}

/// Parses a document that is part of the program.
///
/// # Errors
/// [`Problem::Syntax`].
pub(crate) fn parse_built_in(document: &str) -> Result<Table, ConfigError> {
    parse_at(document, |_| Place::Default)
}

fn parse_at(document: &str, place: impl Fn(usize) -> Place) -> Result<Table, ConfigError> {
    let parsed = DeTable::parse(document).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Problem::Syntax(one_line(error.message())).at(&place(offset))
    })?;
    Ok(convert_table(parsed.get_ref(), &place))
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Table {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<toml::de::DeString<'_>> = key;
        let node = Node { place: place(key.span().start), value: convert(value.get_ref(), place) };
        (key.get_ref().to_string(), node)
    };
    table.iter().map(entry).collect()
}

fn convert(value: &DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("number that is too large"),
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Float(_) => Value::Other("number with a fraction"),
        DeValue::Datetime(_) => Value::Other("date"),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node { place: place(item.span().start), value: convert(item.get_ref(), place) })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

fn line_of(document: &str, offset: usize) -> usize {
    document.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
