//! A proxy between a service and what it talks to, which breaks the connection between them in every way that networks
//! do: it cuts, refuses, falls silent, and is slow.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A running proxy on a port of 127.0.0.1. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    open: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// How the network is.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    refuses: bool,
    silent: bool,
    delay: Duration,
    /// How often everything was cut.
    cuts: u64,
}

impl TcpProxy {
    /// A proxy that forwards to `target`, as yet without harm.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::default());
        let (open, accepted) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let accepting = tokio::spawn(accept(
            listener,
            target,
            weather.subscribe(),
            Arc::clone(&open),
            Arc::clone(&accepted),
        ));
        Self { address, weather, open, accepted, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many connections there were, those included that were refused.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Resets every connection. New ones are as before.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// From now on new connections are reset at once. Those that are open stay.
    pub fn refuse(&self) {
        self.weather.send_modify(|weather| weather.refuses = true);
    }

    /// From now on no byte passes, without a sign: connections stay open, new ones are accepted, and what is sent
    /// waits.
    pub fn fall_silent(&self) {
        self.weather.send_modify(|weather| weather.silent = true);
    }

    /// Delays every piece of bytes from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Ends all harm. What waited goes on.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        // Its connections end with the sender of the weather.
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    open: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        accepted.fetch_add(1, Ordering::SeqCst);
        let (weather, open) = (weather.clone(), Arc::clone(&open));
        tokio::spawn(async move {
            open.fetch_add(1, Ordering::SeqCst);
            connection(client, target, weather).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(mut client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let now = *weather.borrow_and_update();
    if now.refuses {
        reset(&client);
        return;
    }
    let mut pace = weather.clone();
    let both = async {
        calm(&mut pace).await;
        let Ok(mut server) = TcpStream::connect(target).await else {
            reset(&client);
            return;
        };
        // Small messages go as they came.
        server.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::join!(pump(from_client, to_server, pace.clone()), pump(from_server, to_client, pace.clone()));
    };
    let cut = tokio::select! {
        () = both => false,
        // An error: the proxy is gone.
        _ = weather.wait_for(|weather| weather.cuts != now.cuts) => true,
    };
    if cut {
        reset(&client);
    }
}

/// Closes with a reset rather than with an end.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// Passes bytes until there are no more, then the end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let delay = calm(&mut weather).await;
        tokio::time::sleep(delay).await;
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            // Either side may be gone already.
            drop(to.shutdown().await);
            return;
        }
    }
}

/// Waits until bytes pass, and says how long they take.
async fn calm(weather: &mut watch::Receiver<Weather>) -> Duration {
    weather.wait_for(|weather| !weather.silent).await.map_or(Duration::ZERO, |weather| weather.delay)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::assert_eventually;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"hello");
        Ok(())
    }

    #[tokio::test]
    async fn bytes_pass_until_the_connection_is_cut() {
        let proxy = TcpProxy::start(echo().await).await;
        let mut one = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut one).await.unwrap();
        assert_eq!((proxy.open(), proxy.accepted()), (1, 1));
        proxy.cut();
        assert_eventually!(proxy.open() == 0);
        assert!(ask(&mut one).await.is_err());
        let mut two = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut two).await.unwrap();
        two.shutdown().await.unwrap();
        assert_eventually!(proxy.open() == 0);
    }

    #[tokio::test]
    async fn new_connections_are_refused_while_old_ones_live() {
        let proxy = TcpProxy::start(echo().await).await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut old).await.unwrap();
        proxy.refuse();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(ask(&mut new).await.is_err());
        ask(&mut old).await.unwrap();
        proxy.heal();
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn silence_keeps_bytes_back_and_delay_slows_them() {
        let proxy = TcpProxy::start(echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.fall_silent();
        let waiting = tokio::time::timeout(Duration::from_millis(200), ask(&mut stream)).await;
        assert!(waiting.is_err(), "nothing passes and nothing fails");
        proxy.heal();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        proxy.delay(Duration::from_millis(40));
        let asked = Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(asked.elapsed() >= Duration::from_millis(80), "40 ms each way");
    }
}
