//! The listening thread. It has its own runtime, independent of that of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc as queue;
use tokio::task::JoinSet;

use super::answer::answer;
use super::auth::Auth;
use super::content::Content;
use super::http::{After, Connection, Request};
use super::log::Log;
use super::quota::Quota;
use super::resource::Resource;
use super::rule::Rules;

/// What all connections of one upstream share.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) content: Content,
    pub(super) rules: Rules,
    pub(super) log: Log,
    pub(super) auth: Auth,
    /// The path that the API is below.
    pub(super) below: String,
    pub(super) quota: Quota,
    pub(super) connections: AtomicUsize,
    pub(super) serial: AtomicU64,
}

/// An order to the listening thread, with the line on which it says that it is done.
enum Order {
    Listen(mpsc::Sender<()>),
    Refuse(mpsc::Sender<()>),
}

/// The listening thread.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    orders: Option<queue::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start(state: Arc<State>) -> Self {
        let (orders, incoming) = queue::channel(8);
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name("chaos-upstream".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("chaos-upstream")
                .enable_all()
                .build()
                .expect("a runtime for the chaos upstream");
            runtime.block_on(run(state, incoming, tell));
            runtime.shutdown_background();
        });
        let thread = thread.expect("a thread for the chaos upstream");
        let address = told.recv().expect("the chaos upstream listens");
        Self { address, orders: Some(orders), thread: Some(thread) }
    }

    /// Closes every connection and refuses new ones; the port stays ours.
    pub(super) fn stop(&self) {
        self.order(Order::Refuse);
    }

    /// Listens on the same port again.
    pub(super) fn restart(&self) {
        self.order(Order::Refuse);
        self.order(Order::Listen);
    }

    fn order(&self, order: impl FnOnce(mpsc::Sender<()>) -> Order) {
        let (done, wait) = mpsc::channel();
        let orders = self.orders.as_ref().expect("the chaos upstream runs");
        orders.try_send(order(done)).expect("the chaos upstream takes orders");
        wait.recv().expect("the chaos upstream obeys");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders.take();
        // A panic over there has been printed over there.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A socket that reserves the port. Until it listens, connections to the port are refused.
fn hold(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a port that may be taken again at once");
    // Small, so that the bytes counted as sent are nearly those that the client has taken.
    socket.set_send_buffer_size(256 * 1024).expect("a send buffer");
    socket.bind(address).expect("a port of the loopback interface");
    socket
}

/// Listens until the orders end.
async fn run(state: Arc<State>, mut orders: queue::Receiver<Order>, tell: mpsc::Sender<SocketAddr>) {
    let mut held = None;
    let mut listener = Some(hold(([127, 0, 0, 1], 0).into()).listen(1024).expect("a listener"));
    let address = listener.as_ref().expect("just made").local_addr().expect("its address");
    tell.send(address).expect("somebody waits for the address");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => break,
                Some(Order::Refuse(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    held.get_or_insert_with(|| hold(address));
                    done.send(()).expect("somebody waits");
                }
                Some(Order::Listen(done)) => {
                    listener = held.take().map(|socket| socket.listen(1024).expect("a listener")).or(listener);
                    done.send(()).expect("somebody waits");
                }
            },
            stream = accept(listener.as_ref()) => {
                connections.spawn(serve(stream, address, Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
}

/// The next connection; pending without a listener.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => loop {
            if let Ok((stream, _)) = listener.accept().await {
                return stream;
            }
        },
        None => std::future::pending().await,
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<State>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, address: SocketAddr, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::AcqRel);
    let counted = Counted(state);
    let state = &counted.0;
    let host = address.to_string();
    // Without it an answer in two writes would wait for the client's acknowledgement.
    drop(stream.set_nodelay(true));
    let mut connection = Connection::new(stream);
    while let Ok(Some(request)) = connection.next_request().await {
        let entry = state.log.add(&request);
        let answer = respond(state, &request, &host);
        match connection.send(answer, &entry).await {
            Ok(After::KeepAlive) => {}
            Ok(after) => return connection.end(after).await,
            Err(_) => return,
        }
    }
}

/// Refuses the request, or finds the resource and applies the faults.
fn respond(state: &State, request: &Request, host: &str) -> super::http::Answer {
    let serial = state.serial.fetch_add(1, Ordering::Relaxed);
    let path = percent_decode_str(&request.path).decode_utf8_lossy();
    let path = path.strip_prefix(&state.below).unwrap_or(&path);
    if path.starts_with("/v2/")
        && let Some(refusal) = state.auth.refusal(request, path, host)
    {
        return answer(request, refusal, Vec::new(), serial);
    }
    let resource = match path {
        "/token" => state.auth.token(request),
        _ if !matches!(request.method.as_str(), "GET" | "HEAD") => {
            Resource::error(405, "UNSUPPORTED", "this upstream is for reading")
        }
        _ => state.quota.count(request, path, state.content.find(request, path)),
    };
    let faults = state.rules.take(&request.method, &request.target());
    answer(request, resource, faults, serial)
}
