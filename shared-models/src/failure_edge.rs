//! The beginning and the end of a repeated failure, which are logged once each.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the last run of a repeated operation failed.
#[derive(Debug, Default)]
pub struct FailureEdge(AtomicBool);

/// How a result differs from the previous one.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<E> {
    /// It is a failure, and the previous one was a success.
    Began(E),
    /// It is a success, and the previous one was a failure.
    Ended,
}

impl FailureEdge {
    /// Records a result. Returns `None` if the previous result was of the same kind. The initial
    /// state counts as a success.
    pub fn change<'a, T, E>(&self, result: &'a Result<T, E>) -> Option<Change<&'a E>> {
        let fails = result.is_err();
        // Read first: threads share this value, and most results do not change it.
        if self.0.load(Ordering::Relaxed) == fails || self.0.swap(fails, Ordering::Relaxed) == fails {
            return None;
        }
        Some(match result {
            Err(error) => Change::Began(error),
            Ok(_) => Change::Ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_begins_once_and_ends_once() {
        let edge = FailureEdge::default();
        let results = [Ok(1), Err("a"), Err("b"), Ok(2), Ok(3), Err("c")];
        let changes: Vec<_> = results.iter().map(|result| edge.change(result)).collect();
        let (a, c) = (Change::Began(&"a"), Change::Began(&"c"));
        assert_eq!(changes, [None, Some(a), None, Some(Change::Ended), None, Some(c)]);
    }
}
