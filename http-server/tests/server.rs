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
use tokio_util::sync::CancellationToken;

/// A running server, stopped when this value is dropped.
struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// Sends a message when it is dropped.
struct OnDrop(mpsc::Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// Serves an endless body at `/endless`, and one that comes after three seconds at `/late`; `ended` gets a message when an
/// endless body ends.
fn start(head_timeout: Duration, write_timeout: Duration, ended: mpsc::Sender<()>) -> Server {
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
        let late = async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            HttpResponse::Ok().body("late")
        };
        config.route("/endless", web::get().to(endless)).route("/late", web::get().to(late));
    };
    let options = Options {
        workers: 1,
        shutdown_timeout: Duration::from_secs(1),
        keep_alive: LONG,
        head_timeout,
        write_timeout,
        write_buffer: 16 * 1024,
    };
    let metrics = HttpMetrics::register(&mut Registry::default());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listen = Listen { listener, configure, service: |_| "test" };
        let stopped = async {
            drop(stopped.await);
            Duration::ZERO
        };
        runtime.block_on(serve(listen, &options, metrics, CancellationToken::new(), stopped)).unwrap();
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
    let server = start(LONG, Duration::from_secs(1), ended);
    let mut client = request(&server, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = [0; 1024];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK"));
    tokio::time::timeout(Duration::from_secs(60), has_ended.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_reads_slowly_stays_connected() {
    let (ended, mut has_ended) = mpsc::channel(8);
    let server = start(LONG, Duration::from_secs(2), ended);
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
    let server = start(LONG, LONG, mpsc::channel(8).0);
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

/// What a client receives until the server closes the connection.
fn received(mut client: TcpStream) -> String {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    answers
}

#[tokio::test]
async fn every_request_head_of_a_connection_has_a_time_limit() {
    let server = start(Duration::from_secs(1), LONG, mpsc::channel(8).0);
    let head = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let half = &head[..20];
    assert!(received(request(&server, half)).starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    // A second head that begins with the first one, and one that begins after the answer.
    for (first, second) in [(format!("{head}{half}"), &head[20..21]), (head.to_owned(), half)] {
        let mut client = request(&server, &first);
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 404");
        client.write_all(second.as_bytes()).unwrap();
        assert!(!received(client).contains("HTTP/1.1"));
    }
}

#[tokio::test]
async fn the_time_limit_of_a_head_does_not_apply_to_answers_and_idle_connections() {
    let server = start(Duration::from_secs(1), LONG, mpsc::channel(8).0);
    let head = "GET /late HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = request(&server, head);
    for _ in 0..2 {
        let mut answer = Vec::new();
        while !answer.ends_with(b"late") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.write_all(head.as_bytes()).unwrap();
    }
}
