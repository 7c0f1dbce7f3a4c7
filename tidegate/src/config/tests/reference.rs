//! The reference in `docs/configuration.md` and the settings have the same keys, and each key is used.

use std::{collections::BTreeMap, path::Path};

use blob_store::{S3Config, S3Timeouts};
use content_app::{FillPolicy, NodeSettings};
use registry_api::{ApiSettings, UpstreamPolicy};
use serde::de::DeserializeOwned;
use upstream_client::UpstreamConfig;

use super::*;
use crate::config::{environment::variable, section::fields};

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

/// Type, default and variable of each key, by section and key.
type Reference = BTreeMap<(String, String), [String; 3]>;

fn documented() -> Reference {
    let mut keys = Reference::new();
    let mut section = String::new();
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches(['`', '[', ']']).to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if let ["", key, kind, default, variable, meaning, ""] = cells.as_slice()
            && line.starts_with("| `")
        {
            assert!(meaning.len() > 10, "{key} has no meaning");
            let values = [kind, default, variable].map(|cell| (*cell).to_owned());
            let previous = keys.insert((section.clone(), (*key).to_owned()), values);
            assert!(previous.is_none(), "{key} is documented twice");
        }
    }
    keys
}

/// The keys of a section; of a list, an element has at least the `required` ones.
fn add<T: Section>(reference: &mut Reference, section: &str, required: &[(&str, &str)]) {
    let table: Table = required.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let defaults = toml::Table::try_from(T::read(&Keys::root(&table)).unwrap()).unwrap();
    let is_list = !required.is_empty();
    for key in T::keys() {
        let default = match defaults.get(key) {
            Some(toml::Value::String(text)) if !required.iter().any(|(required, _)| *required == key) => {
                text.clone()
            }
            Some(value @ (toml::Value::Integer(_) | toml::Value::Boolean(_))) => value.to_string(),
            _ => String::new(),
        };
        let default = if default.is_empty() { "–".to_owned() } else { default };
        let mut table = table.clone();
        table.insert(key.to_owned(), Value { location: Location::Default, data: Data::Other("a date") });
        let error = T::read(&Keys::root(&table)).err().unwrap().to_string();
        let variable = if is_list { "–".to_owned() } else { variable(Some(section), key) };
        let entry = [kind(&error).to_owned(), default, variable];
        reference.insert((section.to_owned(), key.to_owned()), entry);
    }
}

fn value(text: &str) -> Value {
    Value::untyped(Location::Default, text)
}

/// The type of a key, from the error for a value of another type.
fn kind(error: &str) -> &str {
    let (_, expected) = error.split_once("but must be ").unwrap();
    let kinds = [
        ("a path", "path"),
        ("an address", "address"),
        ("a URL", "URL"),
        ("one of", "word"),
        ("a duration", "duration"),
        ("\"forever\" or a duration", "duration"),
        ("a number of bytes", "size"),
        ("a whole number", "number"),
        ("true or false", "true or false"),
        ("a list", "list"),
    ];
    kinds.iter().find(|(prefix, _)| expected.starts_with(prefix)).map_or("text", |(_, kind)| kind)
}

fn actual() -> Reference {
    let mut keys = Reference::new();
    add::<Log>(&mut keys, "log", &[]);
    add::<Api>(&mut keys, "api", &[]);
    add::<Content>(&mut keys, "content", &[]);
    add::<DbConfig>(&mut keys, "database", &[]);
    add::<Storage>(&mut keys, "storage", &[]);
    add::<JobSettings>(&mut keys, "jobs", &[]);
    add::<Upstream>(&mut keys, "upstream", &[("name", "a"), ("url", "https://a")]);
    add::<Namespace>(&mut keys, "namespace", &[("prefix", "a")]);
    let data_dir = TopLevel::default().data_dir.display().to_string();
    let other = [
        ("Top level", "data_dir", "path", data_dir.as_str(), "TIDEGATE_DATA_DIR"),
        ("Top level", "upstream", "list", "built-in", "TIDEGATE_UPSTREAM"),
        ("Top level", "namespace", "list", "built-in", "TIDEGATE_NAMESPACE"),
        ("link_keys", "id", "text", "–", "–"),
        ("link_keys", "file", "path", "–", "–"),
    ];
    for (section, key, kind, default, variable) in other {
        let entry = [kind, default, variable].map(str::to_owned);
        keys.insert((section.to_owned(), key.to_owned()), entry);
    }
    keys
}

#[test]
fn the_reference_has_each_key_with_its_type_default_and_variable_and_no_other() {
    let (documented, actual) = (documented(), actual());
    for (key, values) in &actual {
        assert_eq!(documented.get(key), Some(values), "{key:?}: documented and actual");
    }
    for key in documented.keys() {
        assert!(actual.contains_key(key), "{key:?} is documented, but not a setting");
    }
    for (section, key) in all_keys() {
        let section = section.unwrap_or("Top level").to_owned();
        assert!(actual.contains_key(&(section, key.to_owned())), "{key} is not compared");
    }
}

/// The Rust code of a crate except that of its settings and tests.
fn source(directory: &Path, code: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        match name {
            "config" | "tests" => {}
            _ if path.is_dir() => source(&path, code),
            _ => *code += &fs::read_to_string(&path).unwrap(),
        }
    }
}

/// Each key of a part must be read by the crate that the part belongs to.
fn assert_read<T: DeserializeOwned>(package: &str) {
    let mut code = String::new();
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src"), &mut code);
    let is_read = |field: &str| {
        code.match_indices(&format!(".{field}")).any(|(index, found)| {
            let next = code[index + found.len()..].chars().next().unwrap_or(' ');
            !next.is_alphanumeric() && next != '_'
        })
    };
    assert!(!fields::<T>().is_empty());
    for key in fields::<T>() {
        // The fields of some structs leave out what their name says.
        let short = [key.strip_prefix("fill_"), key.strip_suffix("_timeout")];
        let fields = short.into_iter().flatten().chain([*key]);
        assert!(fields.into_iter().any(is_read), "`{key}` is not read by {package}");
    }
}

#[test]
fn every_setting_is_read() {
    assert_read::<TopLevel>("tidegate");
    assert_read::<Log>("tidegate");
    assert_read::<ApiServer>("tidegate");
    assert_read::<ContentServer>("tidegate");
    assert_read::<Links>("tidegate");
    assert_read::<ConfiguredLinkKey>("tidegate");
    assert_read::<StorageTier>("tidegate");
    assert_read::<ApiSettings>("registry-api");
    assert_read::<JobSettings>("registry-api");
    assert_read::<UpstreamPolicy>("registry-api");
    assert_read::<Namespace>("registry-api");
    assert_read::<NodeSettings>("content-app");
    assert_read::<FillPolicy>("content-app");
    assert_read::<UpstreamConfig>("upstream-client");
    assert_read::<S3Config>("blob-store");
    assert_read::<S3Timeouts>("blob-store");
    assert_read::<DbConfig>("shared-models");
}

#[test]
fn the_examples_in_the_reference_are_valid() {
    let mut rest = DOCUMENT;
    let mut examples = 0;
    while let Some((_, after)) = rest.split_once("```toml\n") {
        let (example, after) = after.split_once("```").unwrap();
        let written = Written::new(&example.replace("/etc/tidegate", "HERE").replace("/run/secrets", "HERE"))
            .with("link-2026a.key", &"ab".repeat(32))
            .with("link-2026b.key", &"cd".repeat(32))
            .with("hub", "secret\n")
            .with("s3-access-key", "AKIA\n")
            .with("s3-secret-key", "secret\n")
            .with("ca.pem", "-----BEGIN CERTIFICATE-----\n");
        if let Err(error) = written.load(&[]) {
            panic!("{error}\n{example}");
        }
        examples += 1;
        rest = after;
    }
    assert!(examples > 2);
}
