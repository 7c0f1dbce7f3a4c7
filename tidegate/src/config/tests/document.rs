//! The reference in `docs/configuration.md` and the parser know the same keys.

use std::collections::BTreeMap;

use super::*;
use crate::config::{section::Section as _, services::LinkKeyFile};

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

/// Of each key: its section, type, default and variable, as the reference writes them.
type Keys = BTreeMap<(String, String), [String; 3]>;

fn documented() -> Keys {
    let mut keys = Keys::new();
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
            assert!(
                keys.insert((section.clone(), (*key).to_owned()), values).is_none(),
                "{key} stands twice"
            );
        }
    }
    keys
}

fn known() -> Keys {
    let mut keys = Keys::new();
    let lists =
        [("upstream", Upstream::KEYS), ("namespace", Namespace::KEYS), ("link_keys", LinkKeyFile::KEYS)];
    let sections = Settings::SECTIONS.iter().map(|(name, section)| (*name, *section, true));
    for (section, of_section, has_variables) in
        sections.chain(lists.into_iter().map(|(name, section)| (name, section, false)))
    {
        for key in of_section {
            let variable = format!("TIDEGATE_{section}__{}", key.name).to_uppercase();
            let variable = if has_variables { variable } else { "–".to_owned() };
            let default = key.default.unwrap_or("–").to_owned();
            keys.insert((section.to_owned(), key.name.to_owned()), [key.kind.to_owned(), default, variable]);
        }
    }
    let top =
        [("data_dir", "path", DATA_DIR), ("upstream", "list", "built-in"), ("namespace", "list", "built-in")];
    for (key, kind, default) in top {
        let variable = format!("TIDEGATE_{}", key.to_uppercase());
        keys.insert(
            ("Top level".to_owned(), key.to_owned()),
            [kind.to_owned(), default.to_owned(), variable],
        );
    }
    keys
}

#[test]
fn the_reference_has_every_key_with_its_type_default_and_variable_and_no_other() {
    let (documented, known) = (documented(), known());
    for (key, values) in &known {
        assert_eq!(documented.get(key), Some(values), "{key:?} in the reference, and as it is");
    }
    for key in documented.keys() {
        assert!(known.contains_key(key), "{key:?} is in the reference, and nothing reads it");
    }
}

#[test]
fn the_examples_in_the_reference_can_be_used() {
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
