//! Debian's `docker-registry` as an upstream: what real clients and we meet in the world, filled over its push API.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode};
use tempfile::TempDir;
use url::Url;

use crate::http_client::http_client;
use crate::image::{Image, Index};

/// A running `docker-registry` with its storage in a temporary folder. It is killed when it is dropped.
#[derive(Debug)]
pub struct RealRegistry {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    client: Client,
}

impl RealRegistry {
    /// Starts it on a free port and waits until it answers.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = http_client();
        let (child, address) = launch(folder.path(), ([127, 0, 0, 1], 0).into(), &client).await;
        Self { folder, address, child: Some(child), client }
    }

    /// Where it is: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Kills it; its storage stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port and storage.
    pub async fn restart(&mut self) {
        self.stop();
        let (child, _) = launch(self.folder.path(), self.address, &self.client).await;
        self.child = Some(child);
    }

    /// Pushes an image: blobs, manifest, tag.
    pub async fn push_image(&self, repo: &str, tag: &str, image: &Image) {
        self.push_blobs(repo, image).await;
        self.put_manifest(repo, tag, &image.media_type, &image.manifest).await;
    }

    /// Pushes an index with its images (by digest) and tags it. This registry does not support nested indexes.
    pub async fn push_index(&self, repo: &str, tag: &str, index: &Index) {
        assert!(index.indexes.is_empty(), "docker-registry takes no nested indexes");
        for image in &index.images {
            self.push_blobs(repo, image).await;
            self.put_manifest(repo, &image.digest, &image.media_type, &image.manifest).await;
        }
        self.put_manifest(repo, tag, &index.media_type, &index.manifest).await;
    }

    async fn push_blobs(&self, repo: &str, image: &Image) {
        for (digest, bytes) in image.blobs() {
            self.push_blob(repo, digest, bytes).await;
        }
    }

    /// distribution-spec: end-2, end-4a, end-6.
    async fn push_blob(&self, repo: &str, digest: &str, bytes: &Bytes) {
        let base = Url::parse(&self.url()).unwrap();
        let blob = base.join(&format!("/v2/{repo}/blobs/{digest}")).unwrap();
        if self.client.head(blob).send().await.unwrap().status() == StatusCode::OK {
            return;
        }
        let uploads = base.join(&format!("/v2/{repo}/blobs/uploads/")).unwrap();
        let opened = self.client.post(uploads.clone()).send().await.unwrap();
        assert_eq!(opened.status(), StatusCode::ACCEPTED);
        let location = opened.headers()["location"].to_str().unwrap();
        let mut upload = uploads.join(location).unwrap();
        upload.query_pairs_mut().append_pair("digest", digest);
        let put = self.client.put(upload).header("content-type", "application/octet-stream");
        assert_eq!(put.body(bytes.clone()).send().await.unwrap().status(), StatusCode::CREATED);
    }

    /// distribution-spec: end-7.
    async fn put_manifest(&self, repo: &str, reference: &str, media_type: &str, body: &Bytes) {
        let url = format!("{}/v2/{repo}/manifests/{reference}", self.url());
        let put = self.client.put(url).header("content-type", media_type).body(body.clone());
        let answer = put.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the program and waits for its log to say where it listens, and for that place to answer.
async fn launch(folder: &Path, address: SocketAddr, client: &Client) -> (Child, SocketAddr) {
    let log = folder.join("registry.log");
    let config = folder.join("config.yml");
    std::fs::write(&config, configuration(&folder.join("storage"), address)).unwrap();
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        // Its tracing would look for a collector.
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this test needs `docker-registry` ({error}): scripts/test installs it")
        });
    let mut patience = crate::eventually::Patience::of(Duration::from_secs(20));
    loop {
        let said = std::fs::read_to_string(&log).unwrap();
        if let Some(address) = listening_on(&said)
            && client
                .get(format!("http://{address}/v2/"))
                .send()
                .await
                .is_ok_and(|it| it.status().is_success())
        {
            return (child, address);
        }
        if !patience.lasts().await || child.try_wait().unwrap().is_some() {
            drop((child.kill(), child.wait()));
            panic!("docker-registry does not come up:\n{said}");
        }
    }
}

fn configuration(storage: &Path, address: SocketAddr) -> String {
    format!(
        "version: 0.1\n\
         log:\n  level: info\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: {address}\n",
        storage.display()
    )
}

/// The address in a log line of the form `… msg="listening on 127.0.0.1:40001" …`.
fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|letter: char| letter != '.' && letter != ':' && !letter.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Format;
    use crate::tool::Tool;

    #[tokio::test]
    async fn an_image_goes_in_and_skopeo_gets_it_out() {
        let registry = RealRegistry::start().await;
        let image = Image::real(1, &[&[("usr/share/tide", b"in"), ("usr/share/gate", b"out")]]);
        registry.push_image("library/x", "1", &image).await;

        let folder = tempfile::tempdir().unwrap();
        let source = format!("docker://{}/library/x:1", registry.host());
        let target = format!("dir:{}", folder.path().display());
        Tool::new("skopeo").args(["copy", "--src-tls-verify=false", &source, &target]).succeed().await;

        assert_eq!(std::fs::read(folder.path().join("manifest.json")).unwrap(), image.manifest);
        for (digest, bytes) in image.blobs() {
            let file = folder.path().join(digest.strip_prefix("sha256:").unwrap());
            assert_eq!(std::fs::read(file).unwrap(), *bytes);
        }
    }

    #[tokio::test]
    async fn an_index_survives_a_restart() {
        let mut registry = RealRegistry::start().await;
        let [amd, arm] = ["linux/amd64", "linux/arm64/v8"].map(|platform| {
            Image::builder(2)
                .format(Format::Docker)
                .platform(platform)
                .root_layer()
                .random_layer(5000)
                .build()
        });
        let index = Index::docker_list(&[&amd, &arm]);
        registry.push_index("a/b", "latest", &index).await;
        let url = format!("{}/v2/a/b/manifests/latest", registry.url());

        registry.stop();
        let client = http_client();
        assert!(client.get(&url).send().await.unwrap_err().is_connect());
        registry.restart().await;
        let answer = client.get(&url).header("accept", &index.media_type).send().await.unwrap();
        assert_eq!(answer.headers()["docker-content-digest"], index.digest);
        assert_eq!(answer.bytes().await.unwrap(), index.manifest);
    }
}
