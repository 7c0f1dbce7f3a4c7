//! The chaos upstream: a registry in memory with configurable faults and counters.
//!
//! It serves the read-only distribution API on a port of the loopback interface, on its own threads.

mod answer;
mod auth;
mod body;
mod content;
mod http;
mod log;
mod quota;
mod range;
mod resource;
mod rule;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::image::{Image, Index, sha256, sha512};
use auth::{Auth, Credentials, Scheme, Tokens};
pub use log::Seen;
pub use rule::{Fault, Rule};
use server::{Server, State};

/// An upstream registry in memory. It stops when it is dropped.
#[derive(Debug)]
pub struct ChaosUpstream {
    state: Arc<State>,
    server: Server,
}

/// An upstream that is still to be started.
#[derive(Debug, Default)]
pub struct ChaosBuilder {
    auth: Auth,
    below: String,
}

impl ChaosBuilder {
    fn credentials(username: &str, password: &str) -> Credentials {
        Credentials { username: username.to_owned(), password: password.to_owned() }
    }

    /// Requires a token of this upstream's `/token`, which requires these credentials.
    pub fn bearer(mut self, username: &str, password: &str) -> Self {
        self.auth.scheme = Scheme::Bearer(Some(Self::credentials(username, password)));
        self
    }

    /// Requires a token of this upstream's `/token`, which requires no credentials.
    pub fn anonymous_bearer(mut self) -> Self {
        self.auth.scheme = Scheme::Bearer(None);
        self
    }

    /// Requires these credentials with every request.
    pub fn basic(mut self, username: &str, password: &str) -> Self {
        self.auth.scheme = Scheme::Basic(Self::credentials(username, password));
        self
    }

    /// The realm that challenges name, instead of this upstream's own `/token`.
    pub fn realm_override(mut self, realm: &str) -> Self {
        self.auth.realm = Some(realm.to_owned());
        self
    }

    /// The lifetime of tokens in seconds; 300 by default.
    pub fn expires_in(mut self, seconds: u64) -> Self {
        self.auth.expires_in = Some(seconds);
        self
    }

    /// Accepts the tokens that `issuer` issues (name its `/token` as the realm).
    pub fn tokens_of(mut self, issuer: &ChaosUpstream) -> Self {
        let tokens: &Arc<Tokens> = &issuer.state.auth.tokens;
        self.auth.tokens = Arc::clone(tokens);
        self
    }

    /// Serves the API below a path, such as `/some/path`, as behind a proxy that removes it: links lack it.
    pub fn below(mut self, path: &str) -> Self {
        path.clone_into(&mut self.below);
        self
    }

    /// Starts it on a free port.
    pub async fn start(self) -> ChaosUpstream {
        let state = Arc::new(State { auth: self.auth, below: self.below, ..State::default() });
        let server = Server::start(Arc::clone(&state));
        ChaosUpstream { state, server }
    }
}

impl ChaosUpstream {
    /// An upstream with authentication.
    pub fn builder() -> ChaosBuilder {
        ChaosBuilder::default()
    }

    /// An upstream that serves anybody.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where it is: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    /// Closes every connection and refuses new ones from now on. The port stays reserved.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Listens on the same port again, with all connections of before closed.
    pub async fn restart(&self) {
        self.server.restart();
    }

    /// Puts an image: manifest, configuration and layers, and the tag.
    pub fn put_image(&self, repo: &str, tag: &str, image: &Image) {
        self.put_untagged(repo, image);
        self.move_tag(repo, tag, &image.digest);
    }

    fn put_untagged(&self, repo: &str, image: &Image) {
        let content = &self.state.content;
        content.put_manifest(repo, &image.digest, &image.media_type, image.manifest.clone());
        for (digest, bytes) in image.blobs() {
            content.put_blob(repo, digest, bytes.clone());
        }
    }

    /// Puts an index with all its images (and indexes), and the tag.
    pub fn put_index(&self, repo: &str, tag: &str, index: &Index) {
        self.put_index_untagged(repo, index);
        self.move_tag(repo, tag, &index.digest);
    }

    fn put_index_untagged(&self, repo: &str, index: &Index) {
        index.images.iter().for_each(|image| self.put_untagged(repo, image));
        index.indexes.iter().for_each(|nested| self.put_index_untagged(repo, nested));
        self.state.content.put_manifest(repo, &index.digest, &index.media_type, index.manifest.clone());
    }

    /// Puts any manifest bytes and returns the digest they are known by: under a tag their SHA-256, under a digest
    /// that digest, be it true or not.
    pub fn put_manifest(&self, repo: &str, reference: &str, media_type: &str, body: Bytes) -> String {
        let is_digest = reference.contains(':');
        let digest = if is_digest { reference.to_owned() } else { sha256(&body) };
        self.state.content.put_manifest(repo, &digest, media_type, body);
        if !is_digest {
            self.move_tag(repo, reference, &digest);
        }
        digest
    }

    /// Puts a blob.
    ///
    /// # Panics
    /// When the bytes do not hash to `digest`: see [`Self::put_lying_blob`].
    pub fn put_blob(&self, repo: &str, digest: &str, bytes: Bytes) {
        let right = if digest.starts_with("sha512:") { sha512(&bytes) } else { sha256(&bytes) };
        assert_eq!(right, digest, "a blob must hash to its digest");
        self.put_lying_blob(repo, digest, bytes);
    }

    /// Puts a blob whose bytes need not hash to its digest.
    pub fn put_lying_blob(&self, repo: &str, digest: &str, bytes: Bytes) {
        self.state.content.put_blob(repo, digest, bytes);
    }

    /// Puts bytes at any path outside `/v2/`, served with ranges and without authentication: a place to redirect to.
    pub fn put_file(&self, path: &str, bytes: Bytes) {
        self.state.content.put_file(path, bytes);
    }

    /// Serves the referrers API from now on, from the manifests with a `subject`.
    pub fn enable_referrers(&self) {
        self.state.content.has_referrers.store(true, Ordering::Relaxed);
    }

    /// Points a tag at a digest, whether or not there is such a manifest.
    pub fn move_tag(&self, repo: &str, tag: &str, digest: &str) {
        self.state.content.set_tag(repo, tag, digest);
    }

    /// Removes a tag; its manifest stays.
    pub fn delete_tag(&self, repo: &str, tag: &str) {
        self.state.content.delete_tag(repo, tag);
    }

    /// Removes a manifest; tags that point at it dangle.
    pub fn delete_manifest(&self, repo: &str, digest: &str) {
        self.state.content.delete_manifest(repo, digest);
    }

    /// Removes a blob.
    pub fn delete_blob(&self, repo: &str, digest: &str) {
        self.state.content.delete_blob(repo, digest);
    }

    /// Removes a repository with all its content.
    pub fn delete_repo(&self, repo: &str) {
        self.state.content.delete_repo(repo);
    }

    /// Every request since the start or the last [`Self::clear_requests`], in order, challenges and tokens too.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.log.seen()
    }

    /// The number of requests of `method` (`*` for any) with `path_contains` in path or query.
    pub fn count(&self, method: &str, path_contains: &str) -> usize {
        self.state.log.count(method, path_contains)
    }

    /// The number of requests of the token endpoint.
    pub fn token_requests(&self) -> usize {
        self.requests().iter().filter(|seen| seen.path == "/token").count()
    }

    /// Body bytes sent in answers to requests for this blob, see [`Seen::body_bytes`].
    pub fn blob_bytes(&self, digest: &str) -> u64 {
        self.state.log.bytes(&format!("/blobs/{digest}"))
    }

    /// Clears the log of requests.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Acquire)
    }

    /// Appends a rule.
    pub fn on(&self, rule: Rule) {
        self.state.rules.add(rule);
    }

    /// Removes all rules.
    pub fn clear_rules(&self) {
        self.state.rules.clear();
    }

    /// Makes every token issued so far invalid.
    pub fn revoke_tokens(&self) {
        self.state.auth.tokens.revoke();
    }

    /// Counts `GET`s of manifests against a quota, states it in `ratelimit-…` headers, and responds with 429 beyond it.
    pub fn set_rate_limit(&self, limit: u64, remaining: u64) {
        self.state.quota.set(Some((limit, remaining)));
    }

    /// Removes the quota.
    pub fn clear_rate_limit(&self) {
        self.state.quota.set(None);
    }
}
