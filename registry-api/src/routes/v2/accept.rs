//! `Accept` (RFC 9110, section 12.5.1) against the one type that a manifest has.
//!
//! A manifest is stored in one form and never converted, so a type that the client does not list is served all the same, as
//! other registries do. Only a type that it refuses in so many words, with `q=0`, is not.

use oci_types::MediaType;

/// Whether `media_type` may be served to a client that sent these `Accept` headers.
pub(super) fn accepts<'a>(headers: impl Iterator<Item = &'a str>, media_type: &MediaType) -> bool {
    let mut best: Option<(u8, bool)> = None;
    for range in headers.flat_map(|header| header.split(',')) {
        let mut parts = range.split(';');
        let Some(specificity) = specificity(parts.next().unwrap_or_default(), media_type) else { continue };
        let refused = parts.any(is_zero_weight);
        match best {
            Some((known, was_refused)) if known > specificity || (known == specificity && !was_refused) => {}
            _ => best = Some((specificity, refused)),
        }
    }
    !matches!(best, Some((_, true)))
}

/// How closely a media range names the type: 2 exactly, 1 by its first half, 0 by `*/*`.
fn specificity(range: &str, media_type: &MediaType) -> Option<u8> {
    let range = range.trim();
    if range.eq_ignore_ascii_case(media_type.as_str()) {
        return Some(2);
    }
    let (first, second) = range.split_once('/')?;
    let own = media_type.as_str().split('/').next()?;
    match (first, second) {
        ("*", "*") => Some(0),
        (first, "*") if first.eq_ignore_ascii_case(own) => Some(1),
        _ => None,
    }
}

fn is_zero_weight(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use oci_types::media_type::OCI_INDEX;

    use super::*;

    #[test]
    fn only_a_type_refused_in_so_many_words_is_kept_back() {
        let index = MediaType::new(OCI_INDEX);
        let exactly_refused = format!("{OCI_INDEX};q=0");
        for (headers, accepted) in [
            (vec![], true),
            (vec![""], true),
            (vec!["*/*"], true),
            (vec!["application/*;q=0.1"], true),
            (vec!["text/html"], true),
            (vec!["garbage;;q=x"], true),
            (vec!["*/*;q=0"], false),
            (vec!["*/*;q=0", OCI_INDEX], true),
            (vec![exactly_refused.as_str(), "*/*"], false),
            (vec!["application/*; q=0.0, */*"], false),
            (vec![exactly_refused.as_str(), OCI_INDEX], true),
        ] {
            assert_eq!(accepts(headers.iter().copied(), &index), accepted, "{headers:?}");
        }
    }
}
