//! The repositories of one upstream, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::body::Body;
use super::http::Request;
use super::resource::Resource;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Manifests, tags and blobs of one repository. Blobs are shared with the caller and not copied.
#[derive(Debug, Default)]
struct Repository {
    manifests: HashMap<String, (String, Bytes)>,
    tags: BTreeMap<String, String>,
    blobs: HashMap<String, Bytes>,
}

/// All that an upstream holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: RwLock<HashMap<String, Repository>>,
    /// Whether it has the referrers API.
    pub(super) has_referrers: AtomicBool,
    files: RwLock<HashMap<String, Bytes>>,
}

impl Content {
    fn change(&self, repo: &str, change: impl FnOnce(&mut Repository)) {
        change(self.repositories.write().unwrap().entry(repo.to_owned()).or_default());
    }

    /// Stores a manifest under `digest`, whatever its bytes hash to.
    pub(super) fn put_manifest(&self, repo: &str, digest: &str, media_type: &str, body: Bytes) {
        self.change(repo, |repository| {
            repository.manifests.insert(digest.to_owned(), (media_type.to_owned(), body));
        });
    }

    /// Stores a blob under `digest`, whatever its bytes hash to.
    pub(super) fn put_blob(&self, repo: &str, digest: &str, bytes: Bytes) {
        self.change(repo, |repository| {
            repository.blobs.insert(digest.to_owned(), bytes);
        });
    }

    /// Bytes at any path, as a content delivery network has them.
    pub(super) fn put_file(&self, path: &str, bytes: Bytes) {
        self.files.write().unwrap().insert(path.to_owned(), bytes);
    }

    pub(super) fn set_tag(&self, repo: &str, tag: &str, digest: &str) {
        self.change(repo, |repository| {
            repository.tags.insert(tag.to_owned(), digest.to_owned());
        });
    }

    pub(super) fn delete_tag(&self, repo: &str, tag: &str) {
        self.change(repo, |repository| {
            repository.tags.remove(tag);
        });
    }

    pub(super) fn delete_manifest(&self, repo: &str, digest: &str) {
        self.change(repo, |repository| {
            repository.manifests.remove(digest);
        });
    }

    pub(super) fn delete_blob(&self, repo: &str, digest: &str) {
        self.change(repo, |repository| {
            repository.blobs.remove(digest);
        });
    }

    pub(super) fn delete_repo(&self, repo: &str) {
        self.repositories.write().unwrap().remove(repo);
    }

    /// The right answer to a request, faults aside.
    pub(super) fn find(&self, request: &Request, path: &str) -> Resource {
        if let Some(bytes) = self.files.read().unwrap().get(path) {
            return Resource::stored(Body::from(bytes.clone()), "application/octet-stream", None);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Resource::error(404, "UNSUPPORTED", "no such route");
        };
        if rest.is_empty() {
            return Resource::json(200, "{}".to_owned());
        }
        let repositories = self.repositories.read().unwrap();
        let (repo, found) = if let Some((repo, reference)) = rest.rsplit_once("/manifests/") {
            (repo, repositories.get(repo).map(|repository| repository.manifest(reference)))
        } else if let Some((repo, digest)) = rest.rsplit_once("/blobs/") {
            (repo, repositories.get(repo).map(|repository| repository.blob(digest)))
        } else if let Some((repo, digest)) = rest.rsplit_once("/referrers/")
            && self.has_referrers.load(Ordering::Relaxed)
        {
            (repo, repositories.get(repo).map(|repository| repository.referrers(repo, digest, request)))
        } else if let Some(repo) = rest.strip_suffix("/tags/list") {
            (repo, repositories.get(repo).map(|repository| repository.tag_page(repo, request)))
        } else {
            return Resource::error(404, "UNSUPPORTED", "no such route");
        };
        found.unwrap_or_else(|| Resource::error(404, "NAME_UNKNOWN", &format!("no repository {repo}")))
    }
}

impl Repository {
    fn manifest(&self, reference: &str) -> Resource {
        let digest = self.tags.get(reference).map_or(reference, String::as_str);
        let Some((media_type, body)) = self.manifests.get(digest) else {
            return Resource::error(404, "MANIFEST_UNKNOWN", "no such manifest");
        };
        Resource { ranges: false, ..Resource::stored(Body::from(body.clone()), media_type, Some(digest)) }
    }

    fn blob(&self, digest: &str) -> Resource {
        match self.blobs.get(digest) {
            Some(bytes) => {
                Resource::stored(Body::from(bytes.clone()), "application/octet-stream", Some(digest))
            }
            None => Resource::error(404, "BLOB_UNKNOWN", "no such blob"),
        }
    }

    /// distribution-spec: end-12a, in pages of two as it is paged with `after`.
    fn referrers(&self, repo: &str, subject: &str, request: &Request) -> Resource {
        let after = url::form_urlencoded::parse(request.query.as_bytes())
            .find(|(name, _)| name == "after")
            .map_or_else(String::new, |(_, value)| value.into_owned());
        let found: BTreeMap<&String, serde_json::Value> = self
            .manifests
            .iter()
            .filter(|(digest, _)| **digest > after)
            .filter_map(|(digest, (media_type, body))| {
                let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
                (manifest["subject"]["digest"] == subject).then(|| {
                    let descriptor = serde_json::json!({
                        "mediaType": media_type,
                        "digest": digest,
                        "size": body.len(),
                        "artifactType": manifest["artifactType"],
                        "annotations": manifest["annotations"],
                    });
                    (digest, descriptor)
                })
            })
            .collect();
        let page: Vec<_> = found.iter().take(2).collect();
        let next = page.last().filter(|_| found.len() > page.len()).map(|(digest, _)| {
            ("Link".to_owned(), format!("</v2/{repo}/referrers/{subject}?after={digest}>; rel=\"next\""))
        });
        let manifests: Vec<_> = page.iter().map(|(_, descriptor)| *descriptor).collect();
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Resource {
            content_type: OCI_INDEX.to_owned(),
            headers: next.into_iter().collect(),
            ..Resource::json(200, index.to_string())
        }
    }

    /// distribution-spec: end-8a, end-8b.
    fn tag_page(&self, repo: &str, request: &Request) -> Resource {
        let (mut limit, mut last) = (usize::MAX, String::new());
        for (name, value) in url::form_urlencoded::parse(request.query.as_bytes()) {
            match &*name {
                "n" => limit = value.parse().unwrap_or(limit),
                "last" => last = value.into_owned(),
                _ => {}
            }
        }
        let mut rest = self.tags.keys().filter(|tag| **tag > last);
        let tags: Vec<&String> = rest.by_ref().take(limit).collect();
        let next = (rest.next().is_some()).then(|| tags.last()).flatten();
        let link = next.map(|last| {
            ("Link".to_owned(), format!("</v2/{repo}/tags/list?n={limit}&last={last}>; rel=\"next\""))
        });
        let page = Resource::json(200, serde_json::json!({ "name": repo, "tags": tags }).to_string());
        Resource { headers: link.into_iter().collect(), ..page }
    }
}
