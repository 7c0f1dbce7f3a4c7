//! The effective configuration as TOML, for `check-config`.

use std::fmt::Write as _;

use settings::proxy::ProxyAddress;

use super::{Settings, StorageKind, TopLevel, Upstream, section::Section};

impl Settings {
    /// All keys that have a value, as a document that can be read again, and the proxies that apply as comments. Passwords in
    /// URLs are masked; the content of secret files is not included.
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
        out.push_str("\n# The proxies of requests:\n");
        for (service, proxy) in self.proxies() {
            let proxy = proxy.map_or_else(|| "none".to_owned(), |proxy| proxy.to_string());
            let _ = writeln!(out, "# {service}: {proxy}");
        }
        Ok(out)
    }

    /// The proxy that applies to the URL of each upstream, and to the object store.
    fn proxies(&self) -> Vec<(String, Option<ProxyAddress>)> {
        let of_upstream = |upstream: &Upstream| {
            let client = &upstream.client;
            (format!("upstream {}", client.name), client.proxy.proxies(&client.env_proxies).of(&client.url))
        };
        let mut proxies: Vec<_> = self.upstreams.iter().map(of_upstream).collect();
        if self.storage.tier.kind == StorageKind::S3 {
            proxies.push(("object store".to_owned(), self.storage.s3.proxy_of_endpoint()));
        }
        proxies
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
