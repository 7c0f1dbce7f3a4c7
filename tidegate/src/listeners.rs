//! The listeners of a process, bound before anything else is started.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};

use crate::{
    banner::Listening,
    cli::Mode,
    config::{Location, Settings},
};

/// The bound listeners.
pub(crate) struct Listeners {
    /// For clients.
    pub(crate) public: TcpListener,
    /// For health, metrics and the internal API.
    pub(crate) internal: TcpListener,
    /// Their addresses.
    pub(crate) listening: Listening,
}

impl Listeners {
    /// Binds the listeners of a process in `mode`.
    ///
    /// # Errors
    /// An address that is in use, with the location of its setting.
    pub(crate) fn bind(mode: Mode, settings: &Settings) -> anyhow::Result<Self> {
        let (api, content) = (&settings.api.server, &settings.content.server);
        let (public, internal) = match mode {
            Mode::ContentApp => (content.listen, content.internal_listen),
            _ => (api.listen, api.internal_listen),
        };
        let location = |key| settings.location(mode.section(), key);
        if mode == Mode::ContentApp && internal.ip().is_unspecified() && content.internal_url.is_none() {
            // All nodes would have the same URL and name.
            let location = location("internal_listen");
            bail!("{location}: {internal} is not the address of one node: set `content.internal_url`");
        }
        if mode == Mode::ContentApp && public.ip().is_unspecified() && content.public_url.is_none() {
            // registry-api redirects clients to it.
            let location = location("listen");
            bail!("{location}: {public} is not an address for clients: set `content.public_url`");
        }
        let public = bind(public, &location("listen"))?;
        let internal = bind(internal, &location("internal_listen"))?;
        let listening = Listening { public: public.local_addr()?, internal: internal.local_addr()? };
        Ok(Self { public, internal, listening })
    }
}

fn bind(address: SocketAddr, location: &Location) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("{location}: cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
