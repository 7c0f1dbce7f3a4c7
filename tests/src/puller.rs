//! A client that pulls like docker and containerd: after a broken connection it requests the rest from registry-api.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::HeaderMap};
use url::Url;

use crate::{http_client::http_client_without_pool, image::Image};

/// The maximum number of redirects of one request.
const MAX_HOPS: usize = 4;

/// The pauses between attempts: the first, and the maximum of its doublings.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// A client of one registry.
#[derive(Debug)]
pub struct Puller {
    registry: Url,
    // One connection for each request, so that a balancer distributes them.
    http: reqwest::Client,
    gives_up_after: Duration,
}

/// The events of one pull.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    /// Connections that were refused or ended before a response.
    pub refused: usize,
    /// Bodies that were cut.
    pub broken: usize,
    /// Responses of 503 with `Retry-After`.
    pub unavailable: usize,
    /// The URL of each response with bytes.
    pub sent_by: Vec<Url>,
    /// The longest time without a byte.
    pub longest_wait: Duration,
    /// The duration of the pull.
    pub took: Duration,
}

impl Pull {
    /// The number of retries.
    pub fn retries(&self) -> usize {
        self.refused + self.broken + self.unavailable
    }

    /// The sum over several pulls; the maximum of durations.
    pub fn sum<'a>(pulls: impl IntoIterator<Item = &'a Pull>) -> Self {
        pulls.into_iter().fold(Self::default(), |mut sum, pull| {
            sum.refused += pull.refused;
            sum.broken += pull.broken;
            sum.unavailable += pull.unavailable;
            sum.sent_by.extend(pull.sent_by.iter().cloned());
            sum.longest_wait = sum.longest_wait.max(pull.longest_wait);
            sum.took = sum.took.max(pull.took);
            sum
        })
    }
}

/// The end of an incomplete attempt.
enum Setback {
    Refused,
    Broken,
    Unavailable,
    /// An error that clients do not retry.
    Wrong(String),
}

/// A body that is being received.
struct Receiving<'a> {
    expected: &'a [u8],
    at: usize,
    pull: Pull,
    last_byte: Instant,
}

impl Puller {
    /// A client of this registry that fails after 10 seconds without a byte.
    ///
    /// # Panics
    /// When it is no URL.
    pub fn new(registry: &str) -> Self {
        Self {
            registry: Url::parse(registry).unwrap(),
            http: http_client_without_pool(),
            gives_up_after: Duration::from_secs(10),
        }
    }

    /// The time without a byte after which the pull fails.
    pub fn gives_up_after(mut self, patience: Duration) -> Self {
        self.gives_up_after = patience;
        self
    }

    /// Pulls a tag: the manifest, then its blobs.
    ///
    /// # Errors
    /// The cause: a response that is neither right nor a 503 with `Retry-After`, wrong bytes, or no byte for too long.
    pub async fn image(&self, repository: &str, tag: &str, image: &Image) -> Result<Pull, String> {
        let began = Instant::now();
        let mut pulls = vec![self.image_manifest(repository, tag, image).await?];
        for (digest, bytes) in image.blobs() {
            pulls.push(self.blob(repository, digest, bytes).await?);
        }
        Ok(Pull { took: began.elapsed(), ..Pull::sum(&pulls) })
    }

    /// Pulls the manifest of a tag.
    ///
    /// # Errors
    /// As for an image.
    pub async fn image_manifest(&self, repository: &str, tag: &str, image: &Image) -> Result<Pull, String> {
        self.body(&format!("/v2/{repository}/manifests/{tag}"), &image.manifest).await
    }

    /// Pulls a blob.
    ///
    /// # Errors
    /// As for an image.
    pub async fn blob(&self, repository: &str, digest: &str, expected: &Bytes) -> Result<Pull, String> {
        self.body(&format!("/v2/{repository}/blobs/{digest}"), expected).await
    }

    async fn body(&self, path: &str, expected: &Bytes) -> Result<Pull, String> {
        let began = Instant::now();
        let mut receiving = Receiving { expected, at: 0, pull: Pull::default(), last_byte: began };
        let mut pause = PAUSES[0];
        loop {
            let at = receiving.at;
            let setback = match self.attempt(path, &mut receiving).await {
                Ok(()) => break,
                Err(setback) => setback,
            };
            let how = match setback {
                Setback::Refused => &mut receiving.pull.refused,
                Setback::Broken => &mut receiving.pull.broken,
                Setback::Unavailable => &mut receiving.pull.unavailable,
                Setback::Wrong(what) => return Err(format!("{path}: {what} ({:?})", receiving.pull)),
            };
            *how += 1;
            if receiving.last_byte.elapsed() > self.gives_up_after {
                return Err(format!("{path}: no byte after {at} for too long ({:?})", receiving.pull));
            }
            pause = if receiving.at > at { PAUSES[0] } else { (pause * 2).min(PAUSES[1]) };
            tokio::time::sleep(pause).await;
        }
        receiving.pull.took = began.elapsed();
        Ok(receiving.pull)
    }

    /// Requests the rest of the body and follows redirects.
    async fn attempt(&self, path: &str, receiving: &mut Receiving<'_>) -> Result<(), Setback> {
        let mut url = self.registry.join(path).unwrap();
        for _ in 0..MAX_HOPS {
            let mut request = self.http.get(url.clone());
            if receiving.at > 0 {
                request = request.header("range", format!("bytes={}-", receiving.at));
            }
            let answer = request.send().await.map_err(|_| Setback::Refused)?;
            let location = answer.headers().get("location").filter(|_| answer.status().is_redirection());
            match location {
                Some(location) => url = url.join(location.to_str().unwrap()).unwrap(),
                None => return receiving.receive(answer).await,
            }
        }
        Err(Setback::Wrong(format!("redirected more than {MAX_HOPS} times")))
    }
}

impl Receiving<'_> {
    async fn receive(&mut self, mut answer: Response) -> Result<(), Setback> {
        match answer.status() {
            StatusCode::OK => self.at = 0,
            StatusCode::PARTIAL_CONTENT => self.check_start(answer.headers())?,
            StatusCode::SERVICE_UNAVAILABLE if answer.headers().contains_key("retry-after") => {
                return Err(Setback::Unavailable);
            }
            status => {
                let url = answer.url().clone();
                let body = answer.text().await.unwrap_or_default();
                return Err(Setback::Wrong(format!("{status} {body:?} from {url}")));
            }
        }
        self.pull.sent_by.push(answer.url().clone());
        while self.at < self.expected.len() {
            let Ok(Some(chunk)) = answer.chunk().await else { return Err(Setback::Broken) };
            if self.expected.get(self.at..self.at + chunk.len()) != Some(&chunk[..]) {
                return Err(Setback::Wrong(format!("wrong bytes behind {} from {}", self.at, answer.url())));
            }
            self.at += chunk.len();
            self.pull.longest_wait = self.pull.longest_wait.max(self.last_byte.elapsed());
            self.last_byte = Instant::now();
        }
        match answer.chunk().await {
            Ok(None) => Ok(()),
            more => Err(Setback::Wrong(format!("wrong bytes: more than there should be: {more:?}"))),
        }
    }

    fn check_start(&self, headers: &HeaderMap) -> Result<(), Setback> {
        let said = headers.get("content-range").map_or("", |value| value.to_str().unwrap());
        let length = self.expected.len();
        let right = format!("bytes {}-{}/{length}", self.at, length - 1);
        if said == right {
            Ok(())
        } else {
            Err(Setback::Wrong(format!("Content-Range: {said:?} instead of {right:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chaos::{ChaosUpstream, Fault, Rule},
        image::{random_bytes, sha256},
    };

    struct Blob {
        upstream: ChaosUpstream,
        digest: String,
        bytes: Bytes,
    }

    async fn blob() -> Blob {
        let upstream = ChaosUpstream::start().await;
        let bytes = random_bytes(1, 300_000);
        let digest = sha256(&bytes);
        upstream.put_blob("x", &digest, bytes.clone());
        Blob { upstream, digest, bytes }
    }

    impl Blob {
        fn on(&self, fault: Fault) {
            self.upstream.on(Rule::on("GET", &self.digest).times(1).then(fault));
        }

        async fn pull(&self) -> Result<Pull, String> {
            let puller = Puller::new(&self.upstream.url()).gives_up_after(Duration::from_millis(500));
            puller.blob("x", &self.digest, &self.bytes).await
        }
    }

    #[tokio::test]
    async fn a_pull_goes_on_where_it_was() {
        let later = Fault::Status(503, vec![("Retry-After".into(), "1".into())], Bytes::new());
        let blob = blob().await;
        for fault in [Fault::CutAfter(100_000), Fault::DropConnection, later] {
            blob.on(fault);
        }
        let pull = blob.pull().await.unwrap();
        assert_eq!((pull.refused, pull.broken, pull.unavailable, pull.retries()), (1, 1, 1, 3));
        assert_eq!(blob.upstream.requests().last().unwrap().header("range"), Some("bytes=100000-"));
        assert_eq!(pull.sent_by.len(), 2);
    }

    #[tokio::test]
    async fn what_is_wrong_is_not_asked_for_again() {
        let blob = blob().await;
        let faults = [
            (Fault::WrongByteAt(200_000), "wrong bytes"),
            (Fault::LongerBy(1), "wrong bytes"),
            (Fault::Empty(404), "404"),
            (Fault::Empty(503), "503"),
            (Fault::RedirectTo("/nowhere".into()), "404"),
        ];
        for (fault, said) in faults {
            blob.on(fault);
            let error = blob.pull().await.unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        blob.upstream.stop();
        assert!(blob.pull().await.unwrap_err().contains("no byte after 0"));
    }
}
