//! The effective configuration as TOML, for `check-config`.

use std::fmt::Write as _;

use super::{Settings, section::Section, setting::Setting as _};

impl Settings {
    /// Every key with the value that holds, as a document that can be read again. Passwords in URLs are masked, and
    /// what secret files hold is not in it.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        if let Some(data_dir) = self.data_dir.show() {
            entry(&mut out, "data_dir", &data_dir);
        }
        section(&mut out, "[log]", &self.log);
        section(&mut out, "[api]", &self.api);
        section(&mut out, "[content]", &self.content);
        section(&mut out, "[database]", &self.database);
        section(&mut out, "[storage]", &self.storage);
        section(&mut out, "[tasks]", &self.tasks);
        for upstream in &self.upstreams {
            section(&mut out, "[[upstream]]", upstream);
        }
        for namespace in &self.namespaces {
            section(&mut out, "[[namespace]]", namespace);
        }
        out
    }
}

fn section(out: &mut String, header: &str, section: &impl Section) {
    // Writing to a String never fails.
    let _ = writeln!(out, "\n{header}");
    for (key, value) in section.entries() {
        entry(out, key, &value);
    }
}

fn entry(out: &mut String, key: &str, value: &toml::Value) {
    let _ = writeln!(out, "{key} = {value}");
}
