//! The map against a model that knows of every byte whether it is here, claimed or neither.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

const SIZE: u64 = 96;

#[derive(Debug, Clone)]
enum Step {
    /// The download in order goes on, for one segment only or without a bound.
    InOrder { bounded: bool },
    /// A reader wants this.
    Window(Range<u64>),
    /// One of the downloads lands so many bytes.
    Land { which: usize, bytes: u64 },
    /// One of the downloads ends, done or not.
    End { which: usize },
    /// The bytes were wrong.
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => any::<bool>().prop_map(|bounded| Step::InOrder { bounded }),
        4 => (0..SIZE, 1..40_u64).prop_map(|(start, length)| Step::Window(start..(start + length).min(SIZE))),
        6 => (any::<prop::sample::Index>(), 1..20_u64)
            .prop_map(|(which, bytes)| Step::Land { which: which.index(8), bytes }),
        3 => any::<prop::sample::Index>().prop_map(|which| Step::End { which: which.index(8) }),
        1 => Just(Step::Forget),
    ];
    vec(step, 1..80)
}

/// A download as the model sees it: its claim, and where its next byte goes.
#[derive(Debug)]
struct Running {
    id: ClaimId,
    position: u64,
    end: u64,
}

#[derive(Debug, Default)]
struct Model {
    map: Map,
    here: BTreeSet<u64>,
    running: Vec<Running>,
    forgotten: Vec<ClaimId>,
}

impl Model {
    /// A new claim is of bytes that are neither here nor on their way.
    fn begin(&mut self, claimed: Option<(ClaimId, Range<u64>)>) -> Option<Range<u64>> {
        let (id, range) = claimed?;
        self.learn_ends();
        assert!(!range.is_empty() && range.end <= SIZE, "{range:?}");
        for byte in range.clone() {
            assert!(!self.here.contains(&byte), "byte {byte} is here already");
            assert!(!self.is_on_its_way(byte), "byte {byte} is on its way already");
        }
        assert!(self.running.iter().all(|other| other.id != id) && !self.forgotten.contains(&id));
        self.running.push(Running { id, position: range.start, end: range.end });
        Some(range)
    }

    /// Another reader may have taken over a tail: an end moves down, and not below what has landed.
    fn learn_ends(&mut self) {
        for running in &mut self.running {
            let end = self.map.end_of(running.id).expect("a claim stands until it is released");
            assert!(running.position <= end && end <= running.end, "{running:?} ends at {end}");
            running.end = end;
        }
    }

    fn is_on_its_way(&self, byte: u64) -> bool {
        self.running.iter().any(|other| other.position <= byte && byte < other.end)
    }

    fn want(&mut self, window: &Range<u64>, reach: Reach) {
        let missing = window.clone().find(|byte| !self.here.contains(byte));
        let claimed = self.map.claim_for_window(window, SIZE, reach);
        let Some(missing) = missing else { return assert!(claimed.is_none(), "all of {window:?} is here") };
        match self.begin(claimed) {
            Some(range) => {
                assert!(
                    range.contains(&missing),
                    "{range:?} does not bring {missing}, which {window:?} waits for"
                );
                assert!(missing - range.start < reach.segment, "{range:?} begins long before {missing}");
                assert!(range.end < window.end + reach.segment, "{range:?} goes far beyond {window:?}");
            }
            None => {
                let soon = |other: &Running| {
                    other.position <= missing
                        && missing < other.end
                        && missing - other.position <= reach.jump_ahead
                };
                assert!(self.running.iter().any(soon), "nobody brings {missing} soon");
            }
        }
    }

    fn land(&mut self, which: usize, bytes: u64) {
        let Some(running) = self.running.get_mut(which) else { return };
        let to = (running.position + bytes).min(running.end);
        for byte in running.position..to {
            assert!(self.here.insert(byte), "byte {byte} came twice");
        }
        running.position = to;
        self.map.landed(running.id, to);
    }

    fn end(&mut self, which: usize) {
        if which < self.running.len() {
            self.map.release(self.running.remove(which).id);
        }
    }

    fn forget(&mut self) {
        self.map.forget();
        self.forgotten.extend(self.running.drain(..).map(|running| running.id));
        self.here.clear();
        for id in &self.forgotten {
            assert_eq!(self.map.end_of(*id), None);
            // What a download of before says late changes nothing.
            self.map.landed(*id, SIZE);
            self.map.release(*id);
        }
    }

    fn check(&mut self) {
        self.learn_ends();
        for byte in 0..SIZE {
            assert_eq!(self.map.present().contains(byte..byte + 1), self.here.contains(&byte), "byte {byte}");
        }
    }

    /// Whatever has happened, the downloads in order bring the rest.
    fn finish(&mut self) {
        while !self.running.is_empty() {
            self.land(0, SIZE);
            self.end(0);
        }
        while let Some(claimed) = self.map.claim_in_order(0, SIZE, None) {
            self.begin(Some(claimed));
            self.land(0, SIZE);
            self.end(0);
        }
        assert!(self.map.present().contains(0..SIZE));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_byte_is_claimed_once_and_every_window_is_brought(
        steps in steps(),
        jump_ahead in 0..24_u64,
        segment in 1..24_u64,
    ) {
        let reach = Reach { jump_ahead, segment };
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::InOrder { bounded } => {
                    let claimed = model.map.claim_in_order(0, SIZE, bounded.then_some(segment));
                    model.begin(claimed);
                }
                Step::Window(window) => model.want(&window, reach),
                Step::Land { which, bytes } => model.land(which, bytes),
                Step::End { which } => model.end(which),
                Step::Forget => model.forget(),
            }
            model.check();
        }
        model.finish();
    }
}
