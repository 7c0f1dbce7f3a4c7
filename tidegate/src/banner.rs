//! The lines that a process prints to standard output when it is ready.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path,
};

use crate::{cli::Mode, config::Settings};

#[cfg(test)]
mod tests;

/// The addresses that a process listens on.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// For clients.
    pub public: SocketAddr,
    /// For health, metrics and the internal API.
    pub internal: SocketAddr,
}

/// The banner. Its first line is `listening on http://ADDR`, where ADDR has the port that is in use.
pub fn banner(mode: Mode, listening: Listening, settings: &Settings) -> String {
    let data_dir = path::absolute(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
    let mut lines = vec![
        format!("listening on http://{}", listening.public),
        format!("health and metrics on http://{}", listening.internal),
        format!("data in {}", data_dir.display()),
    ];
    if matches!(mode, Mode::Serve | Mode::RegistryApi) {
        lines.extend(pull_command(listening.public, settings).map(|command| format!("try: {command}")));
    }
    lines.join("\n")
}

/// A command that pulls through a configured namespace: that of Docker Hub if possible, of which a public image is known.
fn pull_command(listen: SocketAddr, settings: &Settings) -> Option<String> {
    let proxies = settings.namespaces.iter().filter(|namespace| namespace.upstream.is_some());
    let named = || proxies.clone().filter(|namespace| !namespace.prefix.is_empty());
    let namespace = named()
        .find(|namespace| namespace.prefix == "docker.io" && namespace.include.is_empty())
        .or_else(|| named().next())
        .or_else(|| proxies.clone().next())?;
    let image = match namespace.upstream.as_deref() {
        Some("docker.io") if namespace.include.is_empty() => "library/alpine:latest",
        _ => "NAME:TAG",
    };
    let separator = if namespace.prefix.is_empty() { "" } else { "/" };
    Some(format!("docker pull {}/{}{separator}{image}", reachable(listen), namespace.prefix))
}

/// An address that a client on this machine can connect to: the loopback address in place of an unspecified one.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
