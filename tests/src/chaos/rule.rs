//! Faults, and the rules that select the requests they apply to.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

/// A fault of one response. Offsets "of the body" count the bytes of this response, offsets "of the content" those of the
/// whole manifest or blob, independent of the range.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, these headers and this body instead of the right response.
    Status(u16, Vec<(String, String)>, Bytes),
    /// This status with an empty body.
    Empty(u16),
    /// Send this number of body bytes, then close the connection in order.
    CutAfter(u64),
    /// Send this number of body bytes, then reset the connection.
    ResetAfter(u64),
    /// Send this number of body bytes, pause, continue.
    StallAfter(u64, Duration),
    /// Send this number of body bytes, then nothing until the client disconnects.
    StallForever(u64),
    /// Wait before the headers; `Duration::MAX` never answers.
    Delay(Duration),
    /// Send the body no faster than this.
    Throttle {
        /// The speed.
        bytes_per_second: u64,
    },
    /// Respond with 200 and the whole content, ignoring `Range`.
    IgnoreRange,
    /// Invert the bits of one byte of the content.
    WrongByteAt(u64),
    /// Append this number of zero bytes to the content, and count them in the headers.
    LongerBy(u64),
    /// Leave out the last bytes of the content, and do not count them in the headers.
    ShorterBy(u64),
    /// State this `Content-Length`, send the content, close.
    WrongLength(u64),
    /// No `Docker-Content-Digest`.
    NoDigestHeader,
    /// No `Content-Length`: the body is chunked.
    NoContentLength,
    /// Leave out the header of this name.
    NoHeader(String),
    /// 307 to this place.
    RedirectTo(String),
    /// 405 to `HEAD`; other methods are served.
    HeadNotAllowed,
    /// A new `ETag` in each response; `If-Range` never matches it.
    ChangeEtag,
    /// Another content and content type under the right headers (digest and tag of the true one).
    SwapBody(Bytes, String),
    /// Reset the connection without a response.
    DropConnection,
    /// Add headers; those of the same name are replaced.
    ExtraHeaders(Vec<(String, String)>),
}

/// The requests that a list of faults applies to. Of several matching rules only the first applies, so three rules with
/// `times(1)` define the responses to three requests. Responses of the upstream's own authentication come before the
/// rules and do not consume them.
#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    path_contains: String,
    skip: usize,
    times: usize,
    faults: Vec<Fault>,
}

impl Rule {
    /// Requests of `method` (`*` for any) whose path and query contain `path_contains`.
    pub fn on(method: &str, path_contains: &str) -> Self {
        Self {
            method: method.to_owned(),
            path_contains: path_contains.to_owned(),
            skip: 0,
            times: usize::MAX,
            faults: Vec::new(),
        }
    }

    /// Limits the number of requests.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Skips the first `count` matching requests.
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Adds a fault; several faults are combined.
    pub fn then(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Consumes the rule by one request, if it matches.
    fn take(&mut self, method: &str, target: &str) -> Option<Vec<Fault>> {
        if !matches(&self.method, &self.path_contains, method, target) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times = self.times.checked_sub(1)?;
        Some(self.faults.clone())
    }
}

/// Whether a request is one of `method` (`*` for any) and of a target that contains `part`.
pub(super) fn matches(wanted_method: &str, part: &str, method: &str, target: &str) -> bool {
    (wanted_method == "*" || wanted_method == method) && target.contains(part)
}

/// The rules of one upstream, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    pub(super) fn add(&self, rule: Rule) {
        self.0.lock().unwrap().push(rule);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The faults of the first rule that matches.
    pub(super) fn take(&self, method: &str, target: &str) -> Vec<Fault> {
        self.0.lock().unwrap().iter_mut().find_map(|rule| rule.take(method, target)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_used_up_in_their_order() {
        let rules = Rules::default();
        rules.add(Rule::on("GET", "/blobs/").skip(1).times(1).then(Fault::Empty(500)));
        rules.add(Rule::on("*", "/blobs/").times(2).then(Fault::Empty(404)).then(Fault::IgnoreRange));
        let status = |method| match rules.take(method, "/v2/x/blobs/y").first() {
            Some(Fault::Empty(status)) => *status,
            _ => 200,
        };
        assert_eq!(status("GET"), 404);
        assert_eq!(status("GET"), 500);
        assert_eq!(status("HEAD"), 404);
        assert_eq!(status("GET"), 200);
        assert!(rules.take("GET", "/v2/x/manifests/y").is_empty());
    }
}
