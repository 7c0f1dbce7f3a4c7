//! The values of a configuration before they have types, each with its location.

use std::{borrow::Cow, collections::BTreeMap};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected,
    Visitor, value::StrDeserializer,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::{ConfigError, Location, one_of};

/// A value and its location.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) location: Location,
    pub(super) data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    /// The text of a variable or flag. Its type is that of its key.
    Untyped(String),
    String(String),
    Integer(i64),
    Boolean(bool),
    /// A TOML value that no key has: the description.
    Other(&'static str),
    Array(Vec<Value>),
    Table(Table),
}

/// The keys of a table.
pub(super) type Table = BTreeMap<String, Value>;

/// Parses a TOML document. `location` maps an offset to a location.
///
/// # Errors
/// A syntax error.
pub(super) fn parse(document: &str, location: &dyn Fn(usize) -> Location) -> Result<Table, ConfigError> {
    let table = DeTable::parse(document).map_err(|error| syntax_error(&error, location))?;
    Ok(convert_table(table.get_ref(), location))
}

/// Sets a key of a section, or one of the top level.
pub(super) fn set(root: &mut Table, section: Option<&str>, key: &str, value: Value) {
    let Some(section) = section else {
        root.insert(key.to_owned(), value);
        return;
    };
    let empty = Value { location: value.location.clone(), data: Data::Table(Table::new()) };
    // A section that is not a table is refused when it is read.
    if let Data::Table(table) = &mut root.entry(section.to_owned()).or_insert(empty).data {
        table.insert(key.to_owned(), value);
    }
}

fn syntax_error(error: &toml::de::Error, location: &dyn Fn(usize) -> Location) -> ConfigError {
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let offset = error.span().map_or(0, |span| span.start);
    ConfigError::new(&location(offset), format!("not valid TOML: {message}"))
}

fn convert_table(table: &DeTable<'_>, location: &dyn Fn(usize) -> Location) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            let data = convert(value.get_ref(), location);
            (key.get_ref().to_string(), Value { location: location(key.span().start), data })
        })
        .collect()
}

fn convert(value: &DeValue<'_>, location: &dyn Fn(usize) -> Location) -> Data {
    let item = |item: &Spanned<DeValue<'_>>| Value {
        location: location(item.span().start),
        data: convert(item.get_ref(), location),
    };
    match value {
        DeValue::String(text) => Data::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Data::Other("a number that is too large"), Data::Integer),
        DeValue::Boolean(value) => Data::Boolean(*value),
        DeValue::Float(_) => Data::Other("a number with a fraction"),
        DeValue::Datetime(_) => Data::Other("a date"),
        DeValue::Array(items) => Data::Array(items.iter().map(item).collect()),
        DeValue::Table(table) => Data::Table(convert_table(table, location)),
    }
}

impl Value {
    /// The text of a variable or flag.
    pub(super) fn untyped(location: Location, text: impl Into<String>) -> Self {
        Self { location, data: Data::Untyped(text.into()) }
    }

    /// This value; the text of a variable or flag is parsed as TOML.
    ///
    /// # Errors
    /// A syntax error.
    pub(super) fn parsed(&self) -> Result<Cow<'_, Self>, ConfigError> {
        let Data::Untyped(text) = &self.data else { return Ok(Cow::Borrowed(self)) };
        let location = |_| self.location.clone();
        let value = DeValue::parse(text).map_err(|error| syntax_error(&error, &location))?;
        Ok(Cow::Owned(Self { location: self.location.clone(), data: convert(value.get_ref(), &location) }))
    }
}

impl Value {
    /// This value for an error message.
    pub(super) fn unexpected(&self) -> Unexpected<'_> {
        match &self.data {
            Data::Untyped(text) | Data::String(text) => Unexpected::Str(text),
            Data::Integer(number) => Unexpected::Signed(*number),
            Data::Boolean(value) => Unexpected::Bool(*value),
            Data::Other(description) => Unexpected::Other(description),
            Data::Array(_) => Unexpected::Seq,
            Data::Table(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for &Value {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::Untyped(text) | Data::String(text) => visitor.visit_str(text),
            Data::Integer(number) => visitor.visit_i64(*number),
            Data::Boolean(value) => visitor.visit_bool(*value),
            Data::Other(_) => Err(ConfigError::invalid_type(self.unexpected(), &visitor)),
            Data::Array(items) => visitor.visit_seq(Items(items.iter())),
            Data::Table(table) => visitor.visit_map(Entries::new(table.iter())),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::Untyped(text) if let Ok(value) = text.trim().parse() => visitor.visit_bool(value),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::Untyped(text) if let Ok(number) = text.trim().parse() => visitor.visit_i64(number),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.parsed()?.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.parsed()?.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::Untyped(text) | Data::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(ConfigError::invalid_type(self.unexpected(), &one_of(variants).as_str())),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map identifier ignored_any
    }
}

/// The items of an array. An error gets the location of its item.
struct Items<'a>(std::slice::Iter<'a, Value>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let item = |item: &Value| seed.deserialize(item).map_err(|error| error.at(&item.location));
        self.0.next().map(item).transpose()
    }
}

/// The keys and values of a table. An error gets the location of its key, and that of a value the key as well.
pub(super) struct Entries<'a, I> {
    entries: I,
    value: Option<(&'a str, &'a Value)>,
}

impl<'a, I: Iterator<Item = (&'a String, &'a Value)>> Entries<'a, I> {
    pub(super) fn new(entries: I) -> Self {
        Self { entries, value: None }
    }
}

impl<'de, 'a, I: Iterator<Item = (&'a String, &'a Value)>> MapAccess<'de> for Entries<'a, I> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, value));
        let deserializer: StrDeserializer<'_, ConfigError> = key.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|error| error.at(&value.location))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let (key, value) = self.value.take().ok_or_else(|| ConfigError::custom("no key was read"))?;
        seed.deserialize(value).map_err(|error| error.of_key(key).at(&value.location))
    }
}
