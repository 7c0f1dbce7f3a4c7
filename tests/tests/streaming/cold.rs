//! A world with one blob that is not there yet: where most streaming tests begin.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule, Seen},
    image::Image,
    world::{Answer, TestWorld, WorldBuilder},
};

use crate::raw::Raw;

/// A mebibyte.
pub(crate) const MIB: usize = 1024 * 1024;

/// The repository, as upstream has it and as clients ask for it.
pub(crate) const REPOSITORY: &str = "library/x";
/// The same below the prefix of the upstream `up`.
pub(crate) const NAME: &str = "up/library/x";

/// Brief pauses between attempts, and a stop that does not wait for stalled clients.
pub(crate) const QUICK: &str = "fill_backoff_min = \"10ms\"\nfill_backoff_max = \"50ms\"";

/// Long enough for several clients to come before upstream answers.
pub(crate) const BRIEFLY: Duration = Duration::from_millis(100);

/// A blob that upstream has and that its manifest has told the world of.
pub(crate) struct Cold {
    pub(crate) upstream: ChaosUpstream,
    pub(crate) world: TestWorld,
    pub(crate) digest: String,
    pub(crate) bytes: Bytes,
    pub(crate) url: String,
}

/// An image with one layer of so many bytes; making them takes its time, so each is made once.
pub(crate) fn image(size: usize) -> Image {
    static MADE: LazyLock<Mutex<HashMap<usize, Image>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap();
    made.entry(size).or_insert_with(|| Image::random(u64::try_from(size).unwrap(), &[size])).clone()
}

/// The section `[content]`, and a brief `shutdown_timeout`.
pub(crate) fn sections(content: &str) -> String {
    format!("[api]\nshutdown_timeout = \"1s\"\n[content]\n{QUICK}\n{content}\n")
}

impl Cold {
    /// One blob of `size` bytes and one upstream.
    pub(crate) async fn start(size: usize) -> Self {
        Self::with(size, "").await
    }

    /// The same, with these keys of `[content]`.
    pub(crate) async fn with(size: usize, content: &str) -> Self {
        let upstream = ChaosUpstream::start().await;
        let builder = TestWorld::builder().sections(&sections(content)).upstream("up", &upstream, "");
        Self::build(size, upstream, builder).await
    }

    /// The same in a world that is described already.
    pub(crate) async fn build(size: usize, upstream: ChaosUpstream, builder: WorldBuilder) -> Self {
        let image = image(size);
        upstream.put_image(REPOSITORY, "1", &image);
        let world = builder.start().await;
        let layer = image.layers[0].clone();
        let url = know(&world, NAME, &layer.digest).await;
        upstream.clear_requests();
        Self { upstream, world, digest: layer.digest, bytes: layer.bytes, url }
    }

    /// The same blob in a new process with the same folder.
    pub(crate) async fn restart(self, content: &str) -> Self {
        let Self { upstream, world, digest, bytes, .. } = self;
        let builder = TestWorld::builder().in_dir(world.stop().await).sections(&sections(content));
        let world = builder.upstream("up", &upstream, "").start().await;
        let url = world.content_url(NAME, &digest).await;
        Self { upstream, world, digest, bytes, url }
    }

    /// The part of the blob in percent, in bytes.
    pub(crate) fn percent(&self, percent: usize) -> usize {
        self.bytes.len() / 100 * percent
    }

    /// The blob's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap()
    }

    /// Asks for the blob with these headers and reads the whole answer, which must be complete.
    pub(crate) async fn get(&self, headers: &[(&str, &str)]) -> Answer {
        let request = self.world.client().get(&self.url);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.world.send(request).await
    }

    /// One range, as an answer.
    pub(crate) async fn range(&self, range: &str) -> Answer {
        self.get(&[("range", range)]).await
    }

    /// Begins to read, at one's own pace.
    pub(crate) async fn raw(&self, headers: &[(&str, &str)]) -> Raw {
        Raw::get(&self.url, headers).await
    }

    /// The whole blob comes, and is right.
    pub(crate) async fn assert_served(&self) {
        let answer = self.get(&[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.error_code());
        assert!(answer.body == self.bytes, "another body");
    }

    /// The blob ends stored, with these bytes.
    pub(crate) async fn assert_stored(&self) {
        self.world.assert_stored(&self.digest, &self.bytes).await;
    }

    /// The `GET`s of the blob that upstream has seen.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        let wanted = |seen: &Seen| seen.method == "GET" && seen.path.contains(&self.digest);
        self.upstream.requests().into_iter().filter(wanted).collect()
    }

    /// The `Range` headers of those, empty where there was none.
    pub(crate) fn asked_ranges(&self) -> Vec<String> {
        self.asked().iter().map(|seen| seen.header("range").unwrap_or_default().to_owned()).collect()
    }

    /// Bytes of the blob that upstream has sent.
    pub(crate) fn upstream_bytes(&self) -> u64 {
        self.upstream.blob_bytes(&self.digest)
    }

    /// Upstream has sent the blob once, and at most so much of it in vain.
    pub(crate) fn assert_upstream_bytes(&self, in_vain: usize) {
        let (sent, most) = (self.upstream_bytes(), self.bytes.len() + in_vain);
        assert!(sent >= self.size(), "{sent} of {} bytes were fetched", self.size());
        assert!(sent <= u64::try_from(most).unwrap(), "{sent} bytes were fetched of {}", self.size());
    }

    /// Befalls the next `times` downloads of the blob.
    pub(crate) fn on_blob(&self, times: usize, faults: impl IntoIterator<Item = Fault>) {
        let rule = Rule::on("GET", &self.digest).times(times);
        self.upstream.on(faults.into_iter().fold(rule, Rule::then));
    }

    /// Waits until no download runs.
    pub(crate) async fn idle(&self) {
        assert_eventually!(self.world.metric("tidegate_fills_active").await == 0.0);
    }

    /// How many bytes have come from upstream so far, by what upstream has sent.
    pub(crate) async fn until_sent(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap();
        assert_eventually!(self.upstream_bytes() >= bytes, "{} of {bytes}", self.upstream_bytes());
    }
}

/// Pulls the manifest, so that the blob is known, and returns where its bytes are.
pub(crate) async fn know(world: &TestWorld, name: &str, digest: &str) -> String {
    let manifest = world.send(world.request(Method::GET, &format!("/v2/{name}/manifests/1"))).await;
    assert_eq!(manifest.status, StatusCode::OK, "{manifest:?}");
    world.content_url(name, digest).await
}

/// A number of bytes as offsets are counted.
pub(crate) fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap()
}

/// A speed at which `size` bytes take so long.
pub(crate) fn within(size: usize, time: Duration) -> Fault {
    let bytes_per_second = u64::try_from(size).unwrap() * 1000 / u64::try_from(time.as_millis()).unwrap();
    Fault::Throttle { bytes_per_second }
}
