//! The plan compared with a model that records of every byte whether it is present, claimed or neither.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

const SIZE: u64 = 96;

#[derive(Debug, Clone)]
enum Step {
    /// The next bytes in order are claimed, to the end of their segment or without a limit.
    Next { bounded: bool },
    /// A reader requests a range.
    Range(Range<u64>),
    /// A download receives bytes.
    Receive { which: usize, bytes: u64 },
    /// A download ends, complete or not.
    End { which: usize },
    /// The bytes do not match the digest.
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => any::<bool>().prop_map(|bounded| Step::Next { bounded }),
        4 => (0..SIZE, 1..40_u64).prop_map(|(start, length)| Step::Range(start..(start + length).min(SIZE))),
        6 => (any::<prop::sample::Index>(), 1..20_u64)
            .prop_map(|(which, bytes)| Step::Receive { which: which.index(8), bytes }),
        3 => any::<prop::sample::Index>().prop_map(|which| Step::End { which: which.index(8) }),
        1 => Just(Step::Clear),
    ];
    vec(step, 1..80)
}

/// A download: its claim, and the offset of its next byte.
#[derive(Debug)]
struct Running {
    id: ClaimId,
    position: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Model {
    plan: Plan,
    present: BTreeSet<u64>,
    running: Vec<Running>,
    cleared: Vec<ClaimId>,
}

impl Model {
    /// The bytes of a new claim are neither present nor claimed.
    fn begin(&mut self, claim: Option<Claim>) -> Option<Range<u64>> {
        let Claim { id, range } = claim?;
        self.update_ends();
        assert!(!range.is_empty() && range.end <= SIZE, "{range:?}");
        for byte in range.clone() {
            assert!(!self.present.contains(&byte), "byte {byte} is present already");
            assert!(!self.is_claimed(byte), "byte {byte} is claimed already");
        }
        assert!(self.running.iter().all(|other| other.id != id) && !self.cleared.contains(&id));
        self.running.push(Running { id, position: range.start, end: range.end });
        Some(range)
    }

    /// Another reader may have claimed a tail: an end decreases, and not below the position.
    fn update_ends(&mut self) {
        for running in &mut self.running {
            let end = self.plan.end_of(running.id).expect("a claim exists until it is released");
            assert!(running.position <= end && end <= running.end, "{running:?} ends at {end}");
            running.end = end;
        }
    }

    fn is_claimed(&self, byte: u64) -> bool {
        self.running.iter().any(|other| other.position <= byte && byte < other.end)
    }

    fn request(&mut self, range: &Range<u64>, policy: RangePolicy) {
        let missing = range.clone().find(|byte| !self.present.contains(byte));
        let claimed = self.plan.claim_range(range, SIZE, policy);
        let Some(missing) = missing else { return assert!(claimed.is_none(), "all of {range:?} is present") };
        match self.begin(claimed) {
            Some(claimed) => {
                assert!(claimed.contains(&missing), "{claimed:?} does not bring {missing} of {range:?}");
                assert!(missing - claimed.start < policy.segment, "{claimed:?} begins long before {missing}");
                assert!(claimed.end < range.end + policy.segment, "{claimed:?} goes far beyond {range:?}");
            }
            None => {
                let soon = |other: &Running| {
                    other.position <= missing
                        && missing < other.end
                        && missing - other.position <= policy.jump_ahead
                };
                assert!(self.running.iter().any(soon), "no download is about to bring {missing}");
            }
        }
    }

    fn receive(&mut self, which: usize, bytes: u64) {
        let Some(running) = self.running.get_mut(which) else { return };
        let to = (running.position + bytes).min(running.end);
        for byte in running.position..to {
            assert!(self.present.insert(byte), "byte {byte} came twice");
        }
        running.position = to;
        self.plan.received(running.id, to);
    }

    fn end(&mut self, which: usize) {
        if which < self.running.len() {
            self.plan.release(self.running.remove(which).id);
        }
    }

    fn clear(&mut self) {
        self.plan.clear();
        self.cleared.extend(self.running.drain(..).map(|running| running.id));
        self.present.clear();
        for id in &self.cleared {
            assert_eq!(self.plan.end_of(*id), None);
            // A late call for an old claim has no effect.
            self.plan.received(*id, SIZE);
            self.plan.release(*id);
        }
    }

    fn check(&mut self) {
        self.update_ends();
        for byte in 0..SIZE {
            assert_eq!(
                self.plan.present().contains(byte..byte + 1),
                self.present.contains(&byte),
                "byte {byte}"
            );
        }
    }

    /// After any sequence of operations, downloads in order complete the blob.
    fn finish(&mut self) {
        while !self.running.is_empty() {
            self.receive(0, SIZE);
            self.end(0);
        }
        while let Some(claimed) = self.plan.claim_next(SIZE, None) {
            self.begin(Some(claimed));
            self.receive(0, SIZE);
            self.end(0);
        }
        assert!(self.plan.present().contains(0..SIZE));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_byte_is_claimed_once_and_every_range_is_brought(
        steps in steps(),
        jump_ahead in 0..24_u64,
        segment in 1..24_u64,
    ) {
        let policy = RangePolicy { jump_ahead, segment };
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Next { bounded } => {
                    let claimed = model.plan.claim_next(SIZE, bounded.then_some(segment));
                    model.begin(claimed);
                }
                Step::Range(range) => model.request(&range, policy),
                Step::Receive { which, bytes } => model.receive(which, bytes),
                Step::End { which } => model.end(which),
                Step::Clear => model.clear(),
            }
            model.check();
        }
        model.finish();
    }
}
