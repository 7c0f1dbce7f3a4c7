//! Against an object store that answers `HEAD` alone, and can be unavailable.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::atomic::AtomicUsize,
};

use blob_store::{AccessKeys, S3Config};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// An object store with the blobs whose hexadecimal digests are given.
struct ObjectStore {
    url: String,
    requests: Arc<AtomicUsize>,
    available: Arc<AtomicBool>,
}

impl ObjectStore {
    fn with(blobs: &[&Digest]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let available = Arc::new(AtomicBool::new(true));
        let blobs: Vec<String> = blobs.iter().map(|digest| digest.hex().to_owned()).collect();
        let (counted, is_available) = (Arc::clone(&requests), Arc::clone(&available));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), true) = (stream, is_available.load(Ordering::SeqCst)) else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        break;
                    }
                    head.extend(byte);
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head).into_owned();
                let status =
                    if blobs.iter().any(|hex| head.contains(hex)) { "200 OK" } else { "404 Not Found" };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: 1\r\nETag: \"e\"\r\n\
                     Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n"
                );
                // A client that has left is no concern of this test.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { url, requests, available }
    }

    fn presigner(&self) -> Presigner {
        let keys = AccessKeys {
            access_key: "AKIATEST".to_owned().into(),
            secret_key: "secret".to_owned().into(),
            session_token: None,
        };
        let endpoint = Some(self.url.parse().unwrap());
        Presigner::new(&S3Config { keys: Some(keys), endpoint, ..S3Config::new("layers") }).unwrap()
    }

    fn urls(&self, max_age: Duration) -> PresignedUrls {
        PresignedUrls::new(Some(self.presigner()), max_age)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_url_is_signed_for_seven_days_at_most() {
    let digest = Digest::sha256(b"x");
    let urls = ObjectStore::with(&[&digest]).urls(MINUTE);
    for (lifetime, signed) in [(60, "X-Amz-Expires=60&"), (u64::MAX, "X-Amz-Expires=604800&")] {
        let url = urls.url(&digest, None, Duration::from_secs(lifetime)).await.unwrap();
        assert!(url.contains(digest.hex()) && url.contains(signed), "{url}");
    }
}

#[tokio::test]
async fn the_object_store_is_asked_once_within_the_maximum_age() {
    let digest = Digest::sha256(b"x");
    let store = ObjectStore::with(&[&digest]);
    let urls = store.urls(MINUTE);
    for _ in 0..3 {
        assert!(urls.url(&digest, None, MINUTE).await.is_some());
    }
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn a_blob_that_the_object_store_lacks_has_no_url() {
    let store = ObjectStore::with(&[]);
    let urls = store.urls(MINUTE);
    for _ in 0..2 {
        assert_eq!(urls.url(&Digest::sha256(b"x"), None, MINUTE).await, None);
    }
    assert_eq!(store.requests(), 1);
}

#[tokio::test]
async fn while_the_object_store_is_unavailable_only_blobs_found_before_have_a_url() {
    let (found, sought) = (Digest::sha256(b"found"), Digest::sha256(b"sought"));
    let store = ObjectStore::with(&[&found, &sought]);
    let urls = store.urls(MINUTE);
    assert!(urls.url(&found, None, MINUTE).await.is_some());
    store.available.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(urls.url(&sought, None, MINUTE).await, None);
        assert!(urls.url(&found, None, MINUTE).await.is_some());
    }
}

#[tokio::test]
async fn without_a_signature_there_is_no_url() {
    let digest = Digest::sha256(b"x");
    let store = ObjectStore::with(&[&digest]);
    // A presigner whose runtime has ended cannot sign, like one without credentials.
    let presigner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { store.presigner() })
    });
    let urls = PresignedUrls::new(Some(presigner.join().unwrap()), MINUTE);
    assert!(urls.is_enabled());
    assert_eq!(urls.url(&digest, None, MINUTE).await, None);
    let disabled = PresignedUrls::new(None, MINUTE);
    assert!(!disabled.is_enabled());
    assert_eq!(disabled.url(&digest, None, MINUTE).await, None);
}
