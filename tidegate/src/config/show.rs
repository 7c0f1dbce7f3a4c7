//! The effective configuration as TOML, for `check-config`.

use std::fmt::Write as _;

use super::{Settings, TopLevel, section::Section};

impl Settings {
    /// All keys that have a value, as a document that can be read again. Passwords in URLs are masked; the content of secret
    /// files is not included.
    ///
    /// # Errors
    /// A value that TOML cannot represent.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut out = toml::to_string(&TopLevel { data_dir: self.data_dir.clone() })?;
        section(&mut out, "[log]", &self.log)?;
        section(&mut out, "[api]", &self.api)?;
        section(&mut out, "[content]", &self.content)?;
        section(&mut out, "[database]", &self.database)?;
        section(&mut out, "[storage]", &self.storage)?;
        section(&mut out, "[jobs]", &self.jobs)?;
        for upstream in &self.upstreams {
            section(&mut out, "[[upstream]]", upstream)?;
        }
        for namespace in &self.namespaces {
            section(&mut out, "[[namespace]]", namespace)?;
        }
        Ok(out)
    }
}

fn section<T: Section>(out: &mut String, header: &str, section: &T) -> Result<(), toml::ser::Error> {
    let values = toml::Table::try_from(section)?;
    // Writing to a String never fails.
    let _ = writeln!(out, "\n{header}");
    for key in T::keys() {
        if let Some(value) = values.get(key) {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    Ok(())
}
