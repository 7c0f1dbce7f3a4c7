//! The real program: killed without warning, and with a thousand clients that do not read.

use std::{fs, os::unix::ffi::OsStrExt as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use reqwest::StatusCode;
use tidegate_tests::{
    assert_eventually,
    chaos::{ChaosUpstream, Fault, Rule},
    http_client::http_client,
    image::Layer,
    process::TidegateProcess,
};

use crate::{
    cold::{MIB, NAME, REPOSITORY, count, image, within},
    raw::Raw,
};

/// The program in front of an upstream with one blob.
struct Real {
    upstream: ChaosUpstream,
    process: TidegateProcess,
    digest: String,
    bytes: Bytes,
}

impl Real {
    async fn start(size: usize) -> Self {
        let upstream = ChaosUpstream::start().await;
        upstream.put_image(REPOSITORY, "1", &image(size));
        let config = format!(
            "[[upstream]]\nname = \"up\"\nurl = \"{}\"\n\
             [[namespace]]\nprefix = \"up\"\nupstream = \"up\"\nprefetch = \"none\"\n",
            upstream.url()
        );
        let process = TidegateProcess::builder().config(config).start().await;
        let Layer { digest, bytes } = image(size).layers[0].clone();
        let real = Self { upstream, process, digest, bytes };
        let manifest = real.get(&format!("{}/v2/{NAME}/manifests/1", real.process.url())).await;
        assert_eq!(manifest.0, StatusCode::OK);
        real.upstream.clear_requests();
        real
    }

    async fn get(&self, url: &str) -> (StatusCode, String, Bytes) {
        let answer = http_client().get(url).send().await.unwrap();
        let location =
            answer.headers().get("location").map_or("", |value| value.to_str().unwrap()).to_owned();
        (answer.status(), location, answer.bytes().await.unwrap())
    }

    async fn url(&self) -> String {
        let (status, location, _) =
            self.get(&format!("{}/v2/{NAME}/blobs/{}", self.process.url(), self.digest)).await;
        assert_eq!(status, StatusCode::TEMPORARY_REDIRECT);
        location
    }

    async fn assert_served(&self) {
        let (status, _, body) = self.get(&self.url().await).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body == self.bytes, "other bytes");
        let (algorithm, hex) = self.digest.split_once(':').unwrap();
        let stored = self.process.data_dir().join("blobs").join(algorithm).join(&hex[..2]).join(hex);
        assert_eventually!(stored.exists());
        assert!(fs::read(stored).unwrap() == self.bytes, "other bytes are stored");
    }

    /// How many bytes the saved map of the blob's partial file names.
    fn saved(&self) -> u64 {
        let folder = self.process.data_dir().join("partial").join(self.digest.replace(':', "-"));
        let map = fs::read(folder.join("map")).unwrap_or_default();
        let map: serde_json::Value = serde_json::from_slice(&map).unwrap_or_default();
        let runs: Vec<(u64, u64)> = serde_json::from_value(map["segments"].clone()).unwrap_or_default();
        runs.iter().map(|(start, end)| end - start).sum()
    }

    fn on_blob(&self, times: usize, fault: Fault) {
        self.upstream.on(Rule::on("GET", &self.digest).times(times).then(fault));
    }

    fn ranges(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        let blob = requests.iter().filter(|seen| seen.method == "GET" && seen.path.contains(&self.digest));
        blob.map(|seen| seen.header("range").unwrap_or_default().to_owned()).collect()
    }

    fn assert_upstream_bytes(&self, in_vain: usize) {
        let sent = usize::try_from(self.upstream.blob_bytes(&self.digest)).unwrap();
        let size = self.bytes.len();
        assert!(sent >= size && sent <= size + in_vain, "{sent} bytes were fetched of {size}");
    }

    /// Resident memory, in bytes.
    fn memory(&self) -> u64 {
        let folder = self.process.data_dir();
        // Its command line names its data folder.
        let ours = |process: &PathBuf| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|argument| argument == folder.as_os_str().as_bytes())
        };
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let status = fs::read_to_string(processes.into_iter().find(ours).unwrap().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_half_it_goes_on_from_there_when_it_is_back() {
    let mut real = Real::start(40 * MIB).await;
    let half = 20 * MIB;
    real.on_blob(1, Fault::StallForever(count(half)));
    let mut client = Raw::get(&real.url().await, &[]).await;
    assert!(client.read(half).await == real.bytes[..half]);
    // What has come is on the disk within a second or so, also when nothing more comes.
    assert_eventually!(real.saved() == count(half), "{} of {half} bytes are saved", real.saved());
    real.process.kill9();
    assert!(!client.rest().await.complete);
    real.process.restart().await;
    real.assert_served().await;
    assert_eq!(real.ranges(), [String::new(), format!("bytes={half}-")]);
    real.assert_upstream_bytes(real.bytes.len() / 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_full_speed_it_loses_little_and_the_blob_is_right() {
    let mut real = Real::start(60 * MIB).await;
    real.on_blob(1, within(60 * MIB, Duration::from_millis(1500)));
    let client = Raw::get(&real.url().await, &[]).await;
    assert_eventually!(real.upstream.blob_bytes(&real.digest) >= count(30 * MIB));
    real.process.kill9();
    drop(client);
    real.process.restart().await;
    real.assert_served().await;
    let ranges = real.ranges();
    assert!(ranges[1].starts_with("bytes=") && ranges[1] != "bytes=0-", "{ranges:?}");
    // A checkpoint is written every 8 MiB, while more bytes come.
    real.assert_upstream_bytes(24 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_windows_on_their_way_it_fills_the_holes() {
    let mut real = Real::start(60 * MIB).await;
    real.on_blob(usize::MAX, within(8 * MIB, Duration::from_millis(900)));
    let url = real.url().await;
    let mut clients = Vec::new();
    for start in [50 * MIB, 30 * MIB, 10 * MIB] {
        let range = format!("bytes={start}-{}", start + 2 * MIB - 1);
        let mut client = Raw::get(&url, &[("range", &range)]).await;
        assert!(client.read(MIB).await == real.bytes[start..start + MIB]);
        clients.push(client);
    }
    assert_eventually!(real.saved() > count(3 * MIB));
    real.process.kill9();
    real.upstream.clear_rules();
    real.process.restart().await;
    real.assert_served().await;
    real.assert_upstream_bytes(24 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_hardly_read_cost_little_memory() {
    const CLIENTS: usize = 1000;
    let real = Real::start(20 * MIB).await;
    // The download stands still until all have come.
    real.on_blob(1, Fault::StallForever(count(10 * MIB)));
    let url = real.url().await;
    let idle = real.memory();
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(Raw::ask(&url, &[]).await);
    }
    for client in &mut clients {
        client.head().await;
        assert!(client.read(1000).await == real.bytes[..1000]);
    }
    assert_eq!(real.process.metric("tidegate_fill_readers", &[]).await, count(CLIENTS));
    real.upstream.restart().await;
    let stored = || real.process.metric("tidegate_fills_total", &["outcome=\"stored\""]);
    assert_eventually!(stored().await == 1);
    let more = real.memory().saturating_sub(idle);
    assert!(more <= count(100 * MIB), "{more} bytes more than idle");
    // Each could go on.
    for client in clients.into_iter().step_by(CLIENTS / 4) {
        let rest = client.rest().await;
        assert!(rest.complete && rest.bytes == real.bytes[1000..]);
    }
    real.assert_upstream_bytes(0);
}
