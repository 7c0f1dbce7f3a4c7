//! The server on a real socket.
#![expect(clippy::unwrap_used, reason = "a surprise ends the test at the line where it shows")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{HttpResponse, web};
use futures::stream;
use http_server::{HttpMetrics, Listen, Options, serve};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

/// A running server, which ends with this value.
struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// Sends a message when it is dropped.
struct OnDrop(mpsc::Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// Serves an endless body at `/endless`; `ended` gets a message when one ends.
fn start(write_timeout: Duration, ended: mpsc::Sender<()>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = Arc::new(Mutex::new(ended));
    let configure = move |config: &mut web::ServiceConfig| {
        let ended = Arc::clone(&ended);
        let endless = move || {
            let guard = OnDrop(ended.lock().unwrap().clone());
            async move {
                let body = stream::repeat_with(move || {
                    let _ = &guard;
                    Ok::<_, std::io::Error>(web::Bytes::from_static(&[0; 16 * 1024]))
                });
                HttpResponse::Ok().streaming(body)
            }
        };
        config.route("/endless", web::get().to(endless));
    };
    let options = Options {
        workers: 1,
        shutdown_timeout: Duration::from_secs(1),
        write_timeout,
        write_buffer: 16 * 1024,
    };
    let metrics = HttpMetrics::register(&mut Registry::default());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listen = Listen { listener, configure, service: |_| "test" };
        let stopped = async { drop(stopped.await) };
        runtime.block_on(serve(listen, &options, metrics, stopped)).unwrap();
    });
    Server { address, _stop: stop }
}

fn request(server: &Server, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_disconnected() {
    let (ended, mut has_ended) = mpsc::channel(8);
    let server = start(Duration::from_secs(1), ended);
    let mut client = request(&server, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = [0; 1024];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK"));
    tokio::time::timeout(Duration::from_secs(60), has_ended.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_reads_slowly_stays_connected() {
    let (ended, mut has_ended) = mpsc::channel(8);
    let server = start(Duration::from_secs(2), ended);
    let mut client = request(&server, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut some = vec![0; 512 * 1024];
    for _ in 0..8 {
        client.read_exact(&mut some).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(has_ended.try_recv().is_err(), "it was disconnected");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_with_an_error_body() {
    let server = start(Duration::from_secs(9), mpsc::channel(8).0);
    for (head, status, code) in [
        ("GET /nothing HTTP/1.1", "404 Not Found", "UNSUPPORTED"),
        ("PUT /nothing HTTP/1.1", "405 Method Not Allowed", "UNSUPPORTED"),
        ("PUT /endless HTTP/1.1", "405 Method Not Allowed", "UNSUPPORTED"),
    ] {
        let mut client = request(&server, &format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}: {answer}");
        assert!(answer.contains(&format!(r#"{{"errors":[{{"code":"{code}""#)), "{head}: {answer}");
    }
}
