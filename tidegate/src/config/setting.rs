//! How each kind of setting is read from what was written, and written back.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use super::{
    error::ConfigError,
    tree::{Node, Value},
    units::{self, ByteSize, Period, Spelt},
};

/// A type that a key can have.
pub(crate) trait Setting: Sized {
    /// The type's name in the reference.
    const TYPE: &'static str;

    /// Reads what stands at `key`.
    fn read(key: &str, node: &Node) -> Result<Self, ConfigError>;

    /// The value when nothing is written and the key has no default. `None`: the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// As TOML; `None` when the value is absent.
    fn show(&self) -> Option<toml::Value>;
}

/// A setting that is written as one text.
macro_rules! text_setting {
    ($type:ty, $name:literal, $expected:expr, $read:expr, $show:expr) => {
        impl $crate::config::setting::Setting for $type {
            const TYPE: &'static str = $name;

            fn read(
                key: &str,
                node: &$crate::config::tree::Node,
            ) -> Result<Self, $crate::config::error::ConfigError> {
                let read: fn(&str) -> Option<Self> = $read;
                node.text().and_then(read).ok_or_else(|| node.wrong(key, $expected))
            }

            fn show(&self) -> Option<toml::Value> {
                let show: fn(&Self) -> String = $show;
                Some(toml::Value::String(show(self)))
            }
        }
    };
}
pub(crate) use text_setting;

text_setting!(String, "text", "a text", |text| Some(text.to_owned()), |text| text.clone());
text_setting!(PathBuf, "path", "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)), |path| path
    .display()
    .to_string());
text_setting!(
    SocketAddr,
    "address",
    "an address and port such as \"127.0.0.1:5000\" or \"[::]:5000\"",
    |text| text.parse().ok(),
    |address| address.to_string()
);
text_setting!(Url, "URL", URL, http_url, |url| url.to_string().trim_end_matches('/').to_owned());
text_setting!(Duration, "duration", units::DURATION, units::parse_duration, |duration| Spelt(*duration)
    .to_string());
text_setting!(
    Period,
    "duration",
    "\"forever\" or a duration such as \"5s\", \"20m\" or \"7d\"",
    |text| match text {
        "forever" => Some(Self::Forever),
        text => units::parse_duration(text).map(Self::For),
    },
    |period| match period {
        Self::For(duration) => Spelt(*duration).to_string(),
        Self::Forever => "forever".to_owned(),
    }
);

/// How URLs are spelt, for error messages.
pub(crate) const URL: &str =
    "a URL such as \"https://registry.example.com\", without user, password, query or fragment";

/// An http or https URL with a host, and nothing that would have to be kept secret.
pub(crate) fn http_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

impl Setting for bool {
    const TYPE: &'static str = "true or false";

    fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
        match (&node.value, node.text()) {
            (Value::Boolean(value), _) => Ok(*value),
            (Value::Raw(_), Some("true")) => Ok(true),
            (Value::Raw(_), Some("false")) => Ok(false),
            _ => Err(node.wrong(key, Self::TYPE)),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Boolean(*self))
    }
}

macro_rules! number_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const TYPE: &'static str = "number";

            fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
                let number = match &node.value {
                    Value::Integer(number) => <$type>::try_from(*number).ok(),
                    Value::Raw(text) => text.trim().parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| node.wrong(key, "a whole number that is not negative"))
            }

            fn show(&self) -> Option<toml::Value> {
                Some(toml::Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )*};
}
number_setting!(u8, u16, u32, u64, usize);

impl Setting for ByteSize {
    const TYPE: &'static str = "size";

    fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
        let size = match (&node.value, node.text()) {
            (Value::Integer(bytes), _) => u64::try_from(*bytes).ok().map(Self::new),
            (_, Some(text)) => Self::parse(text),
            _ => None,
        };
        size.ok_or_else(|| node.wrong(key, units::SIZE))
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.to_string()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const TYPE: &'static str = T::TYPE;

    fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
        T::read(key, node).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const TYPE: &'static str = "list";

    fn read(key: &str, node: &Node) -> Result<Self, ConfigError> {
        let node = node.typed()?;
        match &node.value {
            Value::List(items) => items.iter().map(|item| T::read(key, item)).collect(),
            _ => Err(node.wrong(key, "a list such as [\"a\", \"b\"]")),
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.iter().filter_map(T::show).collect()))
    }
}

/// An enum of which each value is one word, and its [`Setting`].
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word that stands for it in the configuration.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::config::setting::Setting for $name {
            const TYPE: &'static str = "word";

            fn read(
                key: &str,
                node: &$crate::config::tree::Node,
            ) -> Result<Self, $crate::config::error::ConfigError> {
                match node.text() {
                    $(Some($word) => Ok(Self::$variant),)*
                    _ => Err(node.wrong(key, &format!("one of {}", [$(concat!("\"", $word, "\""),)*].join(", ")))),
                }
            }

            fn show(&self) -> Option<toml::Value> {
                Some(toml::Value::String(self.word().to_owned()))
            }
        }
    };
}
pub(crate) use words;
