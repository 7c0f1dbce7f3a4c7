//! Failures that last: a line in the log when one begins and a line when it ends, however often it is met between.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something that is done again and again failed the last time.
#[derive(Debug, Default)]
pub struct Outage(AtomicBool);

/// How one result differs from the one before it.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<E> {
    /// It fails now, and did not before.
    Began(E),
    /// It failed before, and does not now.
    Ended,
}

impl Outage {
    /// Takes in how it went this time; `None` when it went as it did before. The first time counts as one after a
    /// success.
    pub fn change<'a, T, E>(&self, result: &'a Result<T, E>) -> Option<Change<&'a E>> {
        let fails = result.is_err();
        // Read first: many threads share this, and most results are as the ones before.
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
    fn a_failure_is_told_when_it_begins_and_when_it_ends() {
        let outage = Outage::default();
        let results = [Ok(1), Err("a"), Err("b"), Ok(2), Ok(3), Err("c")];
        let told: Vec<_> = results.iter().map(|result| outage.change(result)).collect();
        let (a, c) = (Change::Began(&"a"), Change::Began(&"c"));
        assert_eq!(told, [None, Some(a), None, Some(Change::Ended), None, Some(c)]);
    }
}
