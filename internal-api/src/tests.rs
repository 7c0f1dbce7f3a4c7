use std::time::Duration;

use proptest::prelude::*;

use crate::{LinkKey, LinkKeyError, LinkKeys, SignatureError, signed_request::MAX_CLOCK_SKEW};
use oci_types::{Digest, Millis, RepositoryName};

const NOW: Millis = Millis(1_700_000_000_000);

fn key(id: &str) -> LinkKey {
    LinkKey::new(id, format!("{id}: a secret of more than 32 bytes").as_bytes()).unwrap()
}

fn keys() -> LinkKeys {
    LinkKeys::new(key("k1"), Vec::new())
}

/// A link, split into the arguments of `verify`.
fn link(keys: &LinkKeys, repository: &str, expires: Millis) -> (String, String, String) {
    let repository = RepositoryName::parse(repository).unwrap();
    let digest = Digest::sha256(b"blob");
    let link = keys.sign(&repository, &digest, expires);
    let (path, query) = link.split_once('?').unwrap();
    let (name, digest) = path.strip_prefix("/content/v1/").unwrap().split_once("/blobs/").unwrap();
    (name.to_owned(), digest.to_owned(), query.to_owned())
}

#[test]
fn a_signed_link_verifies_until_it_expires() {
    let (repository, digest, query) =
        link(&keys(), "docker.io/library/alpine", NOW.after(Duration::from_secs(60)));
    let verify = |now| keys().verify(&repository, &digest, &query, now);
    let (name, blob) = verify(NOW).unwrap();
    assert_eq!((name.as_str(), blob), ("docker.io/library/alpine", Digest::sha256(b"blob")));
    assert!(verify(NOW.after(Duration::from_millis(59_999))).is_ok());
    assert_eq!(verify(NOW.after(Duration::from_secs(60))), Err(SignatureError::Invalid));
}

#[test]
fn an_expiry_between_seconds_is_rounded_up() {
    let (repository, digest, query) = link(&keys(), "a", Millis(NOW.0 + 1));
    assert!(query.starts_with("expires=1700000001&key=k1&sig="), "{query}");
    assert!(keys().verify(&repository, &digest, &query, Millis(NOW.0 + 999)).is_ok());
}

#[test]
fn old_keys_verify_and_unknown_ones_do_not() {
    let (repository, digest, query) = link(&keys(), "a", NOW.after(Duration::from_secs(60)));
    let rotated = LinkKeys::new(key("k2"), vec![key("k0"), key("k1")]);
    assert!(rotated.verify(&repository, &digest, &query, NOW).is_ok());
    assert!(link(&rotated, "a", NOW).2.contains("key=k2"));
    let forgotten = LinkKeys::new(key("k2"), Vec::new());
    let unknown = SignatureError::UnknownKey { id: "k1".to_owned() };
    assert_eq!(forgotten.verify(&repository, &digest, &query, NOW), Err(unknown));
    let other_secret = LinkKey::new("k1", &[7; 32]).unwrap();
    let impostor = LinkKeys::new(other_secret, Vec::new());
    assert_eq!(impostor.verify(&repository, &digest, &query, NOW), Err(SignatureError::Invalid));
}

#[test]
fn parameters_of_others_are_ignored_and_ours_stand_once() {
    let (repository, digest, query) = link(&keys(), "a", NOW.after(Duration::from_secs(60)));
    let verify = |query: &str| keys().verify(&repository, &digest, query, NOW);
    assert!(verify(&format!("ns=docker.io&{query}&x")).is_ok());
    let mut parts: Vec<_> = query.split('&').collect();
    parts.reverse();
    assert!(verify(&parts.join("&")).is_ok(), "their order doesn't matter");
    for part in &parts {
        assert_eq!(verify(&format!("{query}&{part}")), Err(SignatureError::Invalid), "{part} twice");
        let without: Vec<_> = parts.iter().filter(|other| *other != part).copied().collect();
        assert_eq!(verify(&without.join("&")), Err(SignatureError::Invalid), "no {part}");
    }
    assert_eq!(verify(""), Err(SignatureError::Invalid));
}

#[test]
fn a_secret_is_long_enough_and_is_not_shown() {
    assert_eq!(LinkKey::new("k", &[0; 31]).unwrap_err(), LinkKeyError::Secret);
    for id in ["", "a b", "a&b", "ä", &"a".repeat(65)] {
        assert_eq!(LinkKey::new(id, &[0; 32]).unwrap_err(), LinkKeyError::Id, "{id:?}");
    }
    let shown = format!(
        "{:?}",
        LinkKeys::new(LinkKey::new("k.1_x-y", b"SECRETSECRETSECRETSECRETSECRETSE").unwrap(), vec![])
    );
    assert!(shown.contains("k.1_x-y") && !shown.contains("SECRET") && !shown.contains("83"), "{shown}");
}

#[test]
fn a_request_between_services_verifies_within_the_window_only() {
    let header = keys().sign_request("POST", "/internal/v1/fills/x?y=1", NOW);
    let verify = |now| keys().verify_request("POST", "/internal/v1/fills/x?y=1", &header, now);
    for now in [NOW, NOW.after(MAX_CLOCK_SKEW), NOW.before(MAX_CLOCK_SKEW)] {
        assert_eq!(verify(now), Ok(()));
    }
    let more = MAX_CLOCK_SKEW + Duration::from_millis(1);
    assert_eq!(verify(NOW.after(more)), Err(SignatureError::Invalid));
    assert_eq!(verify(NOW.before(more)), Err(SignatureError::Invalid));
    assert_eq!(
        keys().verify_request("GET", "/internal/v1/fills/x?y=1", &header, NOW),
        Err(SignatureError::Invalid)
    );
    assert_eq!(
        keys().verify_request("POST", "/internal/v1/fills/x?y=2", &header, NOW),
        Err(SignatureError::Invalid)
    );
    assert_eq!(
        keys().verify_request("POST", "/internal/v1/fills/x?y=1", "Bearer x", NOW),
        Err(SignatureError::Invalid)
    );
}

/// Computed by another implementation of HMAC-SHA-256. Processes of two versions run side by side during an upgrade, so
/// these values never change.
#[test]
fn signatures_have_a_fixed_form() {
    let repository = RepositoryName::parse("docker.io/library/alpine").unwrap();
    let link = keys().sign(&repository, &Digest::sha256(b"blob"), NOW.after(Duration::from_secs(60)));
    assert_eq!(
        link,
        "/content/v1/docker.io/library/alpine/blobs/sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8\
         ?expires=1700000060&key=k1&sig=9d254dc0b4fd48495bfc2800fbf2e9dc350e2d1b4263e693c1bcb126d6a91e4c"
    );
    assert_eq!(
        keys().sign_request("POST", "/internal/v1/fills/x?y=1", NOW),
        "Tidegate key=k1,at=1700000000000,sig=2b63e74e0cb2cd4aa9c3c9ee1d58dbcdc57e0bb33f766e896c5fd119ca4928dc"
    );
}

/// `text` with the byte at `at` (modulo the length) changed, if the result is valid UTF-8.
fn altered(text: &str, at: usize, by: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes[at] ^= by;
    String::from_utf8(bytes).ok()
}

proptest! {
    #[test]
    fn a_link_with_any_byte_altered_is_refused(
        name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", part in 0..3usize, at in any::<usize>(), by in 1..=255u8,
    ) {
        let (repository, digest, query) = link(&keys(), &name, NOW.after(Duration::from_secs(60)));
        let mut parts = [repository, digest, query];
        let Some(changed) = altered(&parts[part], at, by) else { return Ok(()) };
        parts[part] = changed;
        let [repository, digest, query] = parts;
        prop_assert!(keys().verify(&repository, &digest, &query, NOW).is_err());
    }

    #[test]
    fn a_header_with_any_byte_altered_is_refused(at in any::<usize>(), by in 1..=255u8) {
        let header = keys().sign_request("GET", "/x", NOW);
        let Some(changed) = altered(&header, at, by) else { return Ok(()) };
        prop_assert!(keys().verify_request("GET", "/x", &changed, NOW).is_err());
    }

    #[test]
    fn moving_a_byte_from_one_field_to_the_next_is_refused(text in "[a-z]{2,20}", at in 1..20usize) {
        let at = at.min(text.len() - 1);
        let header = keys().sign_request(&text[..at], &text[at..], NOW);
        prop_assert!(keys().verify_request(&text, "", &header, NOW).is_err());
        prop_assert_eq!(keys().verify_request(&text[..at], &text[at..], &header, NOW), Ok(()));
    }

    #[test]
    fn no_input_makes_verifying_panic(repository in ".*", digest in ".*", query in ".*", header in ".*") {
        prop_assert_eq!(keys().verify(&repository, &digest, &query, NOW), Err(SignatureError::Invalid));
        prop_assert_eq!(keys().verify_request(&repository, &digest, &header, NOW), Err(SignatureError::Invalid));
    }
}
