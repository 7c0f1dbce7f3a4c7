//! A section of the configuration. Its keys are the fields of one or several structs, each of which belongs to the crate
//! that uses it.

use std::collections::BTreeMap;

use serde::{
    Serialize,
    de::{DeserializeOwned, Deserializer, Error as _, Unexpected, Visitor},
};

use super::{
    error::{ConfigError, Location},
    value::{Data, Entries, Table, Value},
};

/// A section, or an element of a list of tables.
pub(super) trait Section: Serialize + Sized {
    /// A tuple of the structs whose fields are the keys.
    type Parts: Parts;

    /// Puts the parts together, and checks them against each other.
    fn from_parts(parts: Self::Parts, keys: &Keys<'_>) -> Result<Self, ConfigError>;

    /// Reads a section, and refuses keys that it does not have.
    fn read(keys: &Keys<'_>) -> Result<Self, ConfigError> {
        let known = Self::keys();
        if let Some((name, value)) = keys.table.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            return Err(ConfigError::unknown("key", name, known).at(&value.location));
        }
        let parts = Self::Parts::read(keys).map_err(|error| error.at(&keys.location))?;
        Self::from_parts(parts, keys)
    }

    /// The names of all keys.
    fn keys() -> Vec<&'static str> {
        Self::Parts::keys()
    }
}

/// The keys that are set in a section.
#[derive(Debug, Clone)]
pub(super) struct Keys<'a> {
    location: Location,
    table: &'a Table,
}

/// The keys of a section that is not there.
static NONE: Table = Table::new();

impl<'a> Keys<'a> {
    /// No keys.
    pub(super) const NONE: Self = Keys { location: Location::Default, table: &NONE };

    /// The keys of the top level.
    pub(super) fn root(table: &'a Table) -> Self {
        Keys { location: Location::Default, table }
    }

    /// The keys of a table, which is the value of `key`.
    pub(super) fn of(value: &'a Value, key: &str) -> Result<Self, ConfigError> {
        match &value.data {
            Data::Table(table) => Ok(Keys { location: value.location.clone(), table }),
            _ => Err(value.invalid(key, "a table")),
        }
    }

    /// Where a key is set; if it is not, where the section begins.
    pub(super) fn location(&self, key: &str) -> &Location {
        self.get(key).map_or(&self.location, |value| &value.location)
    }

    /// Where an element of a list is set.
    pub(super) fn element_location(&self, key: &str, index: usize) -> &Location {
        let element = self.get(key).and_then(|value| match &value.data {
            Data::Array(items) => items.get(index),
            _ => None,
        });
        element.map_or_else(|| self.location(key), |element| &element.location)
    }

    /// The value of a key that is set.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key)
    }

    /// An error with the location of a key, unless the condition holds.
    pub(super) fn ensure(&self, condition: bool, key: &str, message: &str) -> Result<(), ConfigError> {
        if condition { Ok(()) } else { Err(ConfigError::new(self.location(key), message)) }
    }
}

/// Refuses a name that occurs twice.
pub(super) fn ensure_unique<'a>(
    what: &str,
    names: impl IntoIterator<Item = (&'a str, &'a Location)>,
) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for (name, location) in names {
        if let Some(first) = seen.insert(name, location) {
            let message = format!("duplicate {what} `{name}`, first defined at {first}");
            return Err(ConfigError::new(location, message));
        }
    }
    Ok(())
}

impl Value {
    /// The error that the value of `key` is not what is expected.
    pub(super) fn invalid(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::invalid_value(self.unexpected(), &expected).of_key(key).at(&self.location)
    }
}

/// A tuple of structs.
pub(super) trait Parts: Sized {
    /// The fields of all structs.
    fn keys() -> Vec<&'static str>;

    /// Deserializes each struct from the keys that are its fields.
    fn read(keys: &Keys<'_>) -> Result<Self, ConfigError>;
}

macro_rules! parts {
    ($($part:ident),+) => {
        impl<$($part: DeserializeOwned),+> Parts for ($($part,)+) {
            fn keys() -> Vec<&'static str> {
                [$(fields::<$part>()),+].concat()
            }

            fn read(keys: &Keys<'_>) -> Result<Self, ConfigError> {
                Ok(($($part::deserialize(keys)?,)+))
            }
        }
    };
}
parts!(A);
parts!(A, B);
parts!(A, B, C);
parts!(A, B, C, D);

impl<'de> Deserializer<'de> for &Keys<'_> {
    type Error = ConfigError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let own = self.table.iter().filter(|(key, _)| fields.contains(&key.as_str()));
        visitor.visit_map(Entries::new(own))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        Err(ConfigError::invalid_type(Unexpected::Map, &visitor))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The names of a struct's fields as they are deserialized.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // Ends with an error as soon as the fields are known.
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("only the fields are of interest"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
