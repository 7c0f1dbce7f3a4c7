//! From a request and its faults to an answer.

use super::body::Body;
use super::http::{Answer, Delivery, Request};
use super::range::{Wanted, wanted};
use super::resource::Resource;
use super::rule::Fault;

/// What the faults of a request change besides its content.
#[derive(Debug, Default)]
struct Changes {
    delivery: Delivery,
    ignore_range: bool,
    length: Option<u64>,
    hidden: Vec<String>,
    headers: Vec<(String, String)>,
}

/// Answers `request` with `resource`, spoilt by `faults`. `serial` is a number that no other request has.
pub(super) fn answer(request: &Request, mut resource: Resource, faults: Vec<Fault>, serial: u64) -> Answer {
    let mut changes = Changes::default();
    let head = request.method == "HEAD";
    changes.delivery.close =
        request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    for fault in faults {
        changes.apply(fault, &mut resource, head, serial);
    }
    changes.delivery.head_only = head;
    finish(request, resource, changes)
}

impl Changes {
    fn apply(&mut self, fault: Fault, resource: &mut Resource, head: bool, serial: u64) {
        let delivery = &mut self.delivery;
        match fault {
            Fault::Status(status, headers, body) => {
                *resource =
                    Resource { ranges: false, ..Resource::stored(Body::from(body), "text/plain", None) };
                resource.status = status;
                self.headers.extend(headers);
            }
            Fault::Empty(status) => *resource = empty(status),
            Fault::CutAfter(at) => delivery.cut = Some(at),
            Fault::ResetAfter(at) => delivery.reset = Some(at),
            Fault::StallAfter(at, pause) => delivery.stall = Some((at, pause)),
            Fault::StallForever(at) => delivery.stall = Some((at, std::time::Duration::MAX)),
            Fault::Delay(pause) => delivery.delay = Some(pause),
            Fault::Throttle { bytes_per_second } => delivery.bytes_per_second = Some(bytes_per_second),
            Fault::IgnoreRange => self.ignore_range = true,
            Fault::WrongByteAt(at) => resource.content = resource.content.with_wrong_byte(at),
            Fault::LongerBy(count) => {
                resource.content = std::mem::take(&mut resource.content).longer_by(count)
            }
            Fault::ShorterBy(count) => resource.content = resource.content.shorter_by(count),
            Fault::WrongLength(length) => {
                self.length = Some(length);
                delivery.close = true;
            }
            Fault::NoDigestHeader => self.hidden.push("Docker-Content-Digest".to_owned()),
            Fault::NoContentLength => {
                self.hidden.push("Content-Length".to_owned());
                delivery.chunked = !head;
            }
            Fault::NoHeader(name) => self.hidden.push(name),
            Fault::RedirectTo(place) => {
                *resource = empty(307);
                self.headers.push(("Location".to_owned(), place));
            }
            Fault::HeadNotAllowed if head => *resource = empty(405),
            Fault::HeadNotAllowed => {}
            Fault::ChangeEtag => resource.etag = Some(format!("\"changed-{serial}\"")),
            Fault::SwapBody(body, content_type) => {
                resource.status = 200;
                resource.content = Body::from(body);
                resource.content_type = content_type;
            }
            Fault::DropConnection => delivery.drop = true,
            Fault::ExtraHeaders(headers) => self.headers.extend(headers),
        }
    }
}

fn empty(status: u16) -> Resource {
    Resource { status, ranges: false, ..Resource::stored(Body::default(), "text/plain", None) }
}

/// Ranges, conditions, headers.
fn finish(request: &Request, resource: Resource, changes: Changes) -> Answer {
    let Resource { mut status, content, content_type, digest, etag, mut headers, ranges } = resource;
    let total = content.len();
    let unchanged = |name| request.header(name).is_none_or(|value| etag.as_deref() == Some(value));
    let asked = match request.header("range") {
        Some(range) if ranges && !changes.ignore_range && unchanged("if-range") => wanted(Some(range), total),
        _ => Wanted::Whole,
    };
    let mut body = content;
    headers.push(("Content-Type".to_owned(), content_type));
    if ranges {
        headers.push(("Accept-Ranges".to_owned(), "bytes".to_owned()));
    }
    if status == 200 && request.header("if-none-match").is_some() && unchanged("if-none-match") {
        status = 304;
        body = Body::default();
    } else {
        match asked {
            Wanted::Whole => {}
            Wanted::Part(range) => {
                status = 206;
                headers.push((
                    "Content-Range".to_owned(),
                    format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1)),
                ));
                body = body.slice(range);
            }
            Wanted::Unsatisfiable => {
                status = 416;
                headers.push(("Content-Range".to_owned(), format!("bytes */{total}")));
                body = Body::default();
            }
        }
        headers.push(("Content-Length".to_owned(), changes.length.unwrap_or(body.len()).to_string()));
    }
    headers.extend(digest.map(|digest| ("Docker-Content-Digest".to_owned(), digest)));
    headers.extend(etag.map(|etag| ("ETag".to_owned(), etag)));
    let replaced = |name: &str| changes.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let hidden = |name: &str| changes.hidden.iter().any(|other| other.eq_ignore_ascii_case(name));
    headers.retain(|(name, _)| !replaced(name) && !hidden(name));
    headers.extend(changes.headers);
    Answer { status, headers, body, delivery: changes.delivery }
}
