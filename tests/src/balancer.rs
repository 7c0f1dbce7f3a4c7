//! A load balancer before several servers: each new connection goes to the next one, and past those that refuse.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running balancer on a port of 127.0.0.1. When it is dropped it takes no more connections.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    servers: Vec<Server>,
    next: AtomicUsize,
    lost: AtomicUsize,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    connections: AtomicUsize,
}

impl Balancer {
    /// A balancer before these servers, which need not be there yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = servers.into_iter().map(|address| Server { address, connections: AtomicUsize::new(0) });
        let shared = Arc::new(Shared {
            servers: servers.collect(),
            next: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { shared.pass(client).await });
                }
            }
        });
        Self { address, shared, accepting }
    }

    /// Where it listens, as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of connections of each server.
    pub fn connections(&self) -> Vec<usize> {
        self.shared.servers.iter().map(|server| server.connections.load(Ordering::SeqCst)).collect()
    }

    /// How many connections no server took.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    async fn pass(&self, mut client: TcpStream) {
        let Some(mut server) = self.connect().await else {
            self.lost.fetch_add(1, Ordering::SeqCst);
            // A reset, as from a port without a listener.
            client.set_zero_linger().unwrap();
            return;
        };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        // Either side may disconnect; the other side then sees the end of its own connection.
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    }

    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::SeqCst);
        for number in 0..self.servers.len() {
            let server = &self.servers[(first + number) % self.servers.len()];
            if let Ok(stream) = TcpStream::connect(server.address).await {
                server.connections.fetch_add(1, Ordering::SeqCst);
                return Some(stream);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::assert_eventually;

    /// A server that says its name and ends.
    async fn named(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name.as_bytes()).await.unwrap();
            }
        });
        (address, serving)
    }

    async fn ask(balancer: &Balancer) -> String {
        let mut said = String::new();
        let mut stream = TcpStream::connect(balancer.address).await.unwrap();
        // A reset says nothing, too.
        let _ = stream.read_to_string(&mut said).await;
        said
    }

    #[tokio::test]
    async fn connections_go_round_and_past_a_server_that_is_gone() {
        let (one, serving_one) = named("one").await;
        let (two, serving_two) = named("two").await;
        let balancer = Balancer::start([one, two]).await;
        let mut said = Vec::new();
        for _ in 0..4 {
            said.push(ask(&balancer).await);
        }
        assert_eq!(said, ["one", "two", "one", "two"]);
        serving_one.abort();
        assert_eventually!(TcpStream::connect(one).await.is_err());
        assert_eq!([ask(&balancer).await, ask(&balancer).await], ["two", "two"]);
        assert_eq!((balancer.connections(), balancer.lost()), (vec![2, 4], 0));
        serving_two.abort();
        assert_eventually!(TcpStream::connect(two).await.is_err());
        assert_eq!(ask(&balancer).await, "");
        assert_eq!(balancer.lost(), 1);
    }
}
