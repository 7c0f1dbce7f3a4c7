//! What these tests say often.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use tidegate_tests::{
    assert_eventually,
    chaos::{Fault, Rule},
    cluster::{Cluster, NAME},
    image::Image,
    puller::{Pull, Puller},
};

/// A mebibyte.
pub(crate) const MIB: usize = 1024 * 1024;

/// A length in the unit of offsets.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

/// An image with one layer of so many bytes; making them takes its time, so each is made once.
pub(crate) fn image(size: usize) -> Image {
    static MADE: LazyLock<Mutex<HashMap<usize, Image>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap();
    made.entry(size).or_insert_with(|| Image::random(count(size), &[size])).clone()
}

/// A blob that upstream has and that the cluster has been told of.
pub(crate) struct Cold {
    pub(crate) cluster: Cluster,
    pub(crate) digest: String,
    pub(crate) bytes: Bytes,
}

impl Cold {
    /// A cluster and a blob that it does not have, which upstream will need so long for.
    pub(crate) async fn of(cluster: Cluster, size: usize, pace: Duration) -> Self {
        let image = image(size);
        cluster.announce(&image).await;
        cluster.upstream.clear_requests();
        let layer = image.layers[0].clone();
        let millis = u64::try_from(pace.as_millis()).unwrap();
        let bytes_per_second = count(size) * 1000 / millis;
        cluster.upstream.on(Rule::on("GET", &layer.digest).then(Fault::Throttle { bytes_per_second }));
        Self { cluster, digest: layer.digest, bytes: layer.bytes }
    }

    /// One client gets the blob.
    pub(crate) async fn pull(&self, puller: &Puller) -> Result<Pull, String> {
        puller.blob(NAME, &self.digest, &self.bytes).await
    }

    /// So many clients get the blob at once; what each met with.
    pub(crate) async fn pulls(&self, clients: usize) -> Vec<Pull> {
        let puller = self.cluster.puller().gives_up_after(Duration::from_secs(30));
        let pulls = join_all((0..clients).map(|_| self.pull(&puller))).await;
        pulls.into_iter().map(|pull| pull.unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    /// Whether upstream has sent so much of it.
    pub(crate) fn has_come(&self, percent: u64) -> bool {
        self.cluster.upstream.blob_bytes(&self.digest) >= count(self.bytes.len()) * percent / 100
    }

    /// Waits until it lies in S3, once, with nothing left of its upload.
    pub(crate) async fn assert_stored(&self) {
        let within = Duration::from_secs(30);
        let row = format!("blobs WHERE digest = '{}' AND state = 1", self.digest);
        assert_eventually!(within within, self.cluster.database.rows(&row).await == 1, "it is not stored");
        let server = &self.cluster.storage.as_ref().unwrap().server;
        let hex = &self.digest[7..];
        let key = || server.keys().into_iter().find(|key| key.contains(hex));
        assert_eventually!(within within, key().is_some(), "{:?}", server.keys());
        assert!(server.object(&key().unwrap()) == self.bytes, "other bytes are stored");
        assert_eventually!(within within, server.parts() == 0, "{} parts are left", server.parts());
        self.cluster.assert_no_leases().await;
    }

    /// What upstream has sent of it, as a part of its size.
    pub(crate) fn ratio(&self) -> f64 {
        self.cluster.upstream_ratio(&self.digest, self.bytes.len())
    }
}

/// How many of them got bytes from each content node.
pub(crate) fn by_node(cluster: &Cluster, pulls: &[Pull]) -> Vec<usize> {
    let from = |url: &str, pull: &&Pull| pull.sent_by.iter().any(|sent_by| sent_by.as_str().starts_with(url));
    let nodes = cluster.contents.iter();
    nodes.map(|node| pulls.iter().filter(|pull| from(&node.url(), pull)).count()).collect()
}
