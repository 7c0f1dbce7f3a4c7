//! A section of the configuration: a struct whose fields are its keys.

use super::{
    error::{ConfigError, Place, Problem, most_like},
    setting::Setting,
    tree::{Node, Table, Value},
};

/// A key of a section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The type's name in the reference.
    pub(crate) kind: &'static str,
    /// As it would be written in a variable.
    pub(crate) default: Option<&'static str>,
}

/// What [`section!`] gives a struct.
pub(crate) trait Section: Sized {
    /// Every key, in the order of the reference.
    const KEYS: &'static [Key];

    /// Reads a table; `place` is where the table begins.
    fn from_table(place: &Place, table: &Table) -> Result<Self, ConfigError>;

    /// Every key that has a value, in the order of [`Section::KEYS`].
    fn entries(&self) -> Vec<(&'static str, toml::Value)>;
}

/// Defines a section: each field is a key, and what stands behind `=` its default, written as in a variable.
/// Fields behind `resolved` are no keys; they are filled when the configuration is resolved.
macro_rules! section {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $($(#[$key_doc:meta])* pub $key:ident: $type:ty $(= $default:literal)?,)*
        }
        $(resolved { $($(#[$extra_doc:meta])* pub $extra:ident: $extra_type:ty,)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$key_doc])* pub $key: $type,)*
            $($($(#[$extra_doc])* pub $extra: $extra_type,)*)?
        }

        impl $crate::config::section::Section for $name {
            const KEYS: &'static [$crate::config::section::Key] = &[$(
                $crate::config::section::Key {
                    name: stringify!($key),
                    kind: <$type as $crate::config::setting::Setting>::TYPE,
                    default: $crate::config::section::first(&[$($default)?]),
                },
            )*];

            fn from_table(
                place: &$crate::config::error::Place,
                table: &$crate::config::tree::Table,
            ) -> Result<Self, $crate::config::error::ConfigError> {
                $crate::config::section::refuse_unknown(table, Self::KEYS)?;
                Ok(Self {
                    $($key: $crate::config::section::value(
                        place,
                        table,
                        stringify!($key),
                        $crate::config::section::first(&[$($default)?]),
                    )?,)*
                    $($($extra: Default::default(),)*)?
                })
            }

            fn entries(&self) -> Vec<(&'static str, toml::Value)> {
                [$((stringify!($key), $crate::config::setting::Setting::show(&self.$key)),)*]
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect()
            }
        }
    };
}
pub(crate) use section;

/// The only element, if there is one.
pub(crate) const fn first(default: &[&'static str]) -> Option<&'static str> {
    match default {
        [only] => Some(*only),
        _ => None,
    }
}

/// Refuses a table with a key that is not among `keys`.
pub(crate) fn refuse_unknown(table: &Table, keys: &[Key]) -> Result<(), ConfigError> {
    let known = |name: &str| keys.iter().any(|key| key.name == name);
    match table.iter().find(|(name, _)| !known(name)) {
        None => Ok(()),
        Some((name, node)) => {
            let known = most_like(name, keys.iter().map(|key| key.name));
            Err(Problem::Unknown { kind: "key", name: name.clone(), known }.at(&node.place))
        }
    }
}

/// The value of a key: as written, else its default, else what its type says of absence.
pub(crate) fn value<T: Setting>(
    place: &Place,
    table: &Table,
    key: &'static str,
    default: Option<&'static str>,
) -> Result<T, ConfigError> {
    match (table.get(key), default) {
        (Some(node), _) => T::read(key, node),
        (None, Some(default)) => T::read(key, &Node::raw(&Place::Default, default)),
        (None, None) => T::absent().ok_or_else(|| Problem::Missing(key).at(place)),
    }
}

/// A section as an element of a list.
impl<S: Section> Setting for S {
    const TYPE: &'static str = "table";

    fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
        let node = node.typed()?;
        match &node.value {
            Value::Table(table) => S::from_table(&node.place, table),
            _ => Err(node.wrong(key, "a table")),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        let entries = self.entries().into_iter().map(|(key, value)| (key.to_owned(), value));
        Some(toml::Value::Table(entries.collect()))
    }
}
