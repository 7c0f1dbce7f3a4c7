//! Selection of the next source, from a pure record of failures.
//!
//! Sources are used in rounds. In a round, each source is used until it fails; a failure of a whole upstream, such as a
//! refused connection, ends the round for all its sources. When every source has failed, the next round begins after a
//! delay. Rounds without progress are limited.

use upstream_client::{ProxyRefusal, UpstreamError};

use crate::error::{DownloadError, FillError};

#[cfg(test)]
mod tests;

/// Rounds without progress before a fill without bytes fails, so that its readers get an early
/// error.
const MAX_ROUNDS_AT_START: u32 = 3;

/// Digest mismatches of blobs from peers before the upstreams are used instead.
const MAX_PEER_MISMATCHES: u32 = 2;

/// Which source of a fill is next. Sources are named by index: first those that are used in rounds, then followed peers.
#[derive(Debug)]
pub(crate) struct Choice {
    candidates: Vec<Candidate>,
    current: usize,
    /// Rounds without progress.
    rounds: u32,
    max_rounds: u32,
    /// The most informative error.
    error: FillError,
    /// A source stated another size in this round.
    is_size_disputed: bool,
    /// A source that fails is used again before the next one.
    is_sticky: bool,
    /// The peer whose fill is followed.
    followed: Option<usize>,
    /// Failures of followed peers since the last progress.
    peer_failures: u32,
    peer_mismatches: u32,
    /// The number of times that all bytes were discarded.
    restarts: usize,
}

/// A source that is used in rounds.
#[derive(Debug)]
struct Candidate {
    /// The service behind it.
    origin: String,
    /// Not used again in this fill.
    is_excluded: bool,
    /// Not used again in this round.
    has_failed: bool,
    /// Its bytes, of several responses, did not match the digest once.
    was_repeated: bool,
}

/// The action after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another source is next, at once.
    Other,
    /// A new round, after a delay that grows with each one.
    Retry,
    /// As `Retry`, and the bytes that are present are discarded with the size that they were received for.
    StartOver,
    /// Retry, unless the followed peer no longer has the blob.
    ProbePeer,
    /// The source is no longer in use: continue.
    Ignore,
}

/// Which sources the present bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contributors {
    /// There are no bytes.
    None,
    /// One source.
    One {
        /// Its index.
        source: usize,
        /// The number of responses.
        responses: usize,
    },
    /// Several sources, or an earlier fill whose source is unknown.
    Several,
}

/// The scope of the exclusion after a failure of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The source, in this round.
    Source,
    /// All sources of its origin, in this round.
    Origin,
    /// The source, in this fill.
    SourceForGood,
    /// All sources of its origin, in this fill.
    OriginForGood,
}

impl Choice {
    /// A choice among sources with these origins, which fails after `max_rounds` without progress.
    pub(crate) fn new(origins: &[String], max_rounds: u32) -> Self {
        let candidate = |origin: &String| Candidate {
            origin: origin.clone(),
            is_excluded: false,
            has_failed: false,
            was_repeated: false,
        };
        Self {
            candidates: origins.iter().map(candidate).collect(),
            current: 0,
            rounds: 0,
            max_rounds,
            error: FillError::NoSource,
            is_size_disputed: false,
            is_sticky: false,
            followed: None,
            peer_failures: 0,
            peer_mismatches: 0,
            restarts: 0,
        }
    }

    /// No source, although some are recorded: their upstreams are not configured.
    pub(crate) fn unconfigured(max_rounds: u32) -> Self {
        Self { error: FillError::Unconfigured, ..Self::new(&[], max_rounds) }
    }

    /// The source that is next.
    ///
    /// # Errors
    /// All sources are excluded; the most informative error.
    pub(crate) fn current(&self) -> Result<usize, FillError> {
        if let Some(peer) = self.followed {
            return Ok(peer);
        }
        let next = self.next(|candidate| !candidate.has_failed).or_else(|| self.next(|_| true));
        next.ok_or_else(|| self.error.clone())
    }

    /// The first source from the current one on that is not excluded and for which `admits` holds.
    fn next(&self, admits: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let count = self.candidates.len();
        (0..count)
            .map(|step| (self.current + step) % count)
            .find(|index| self.candidates.get(*index).is_some_and(|one| !one.is_excluded && admits(one)))
    }

    /// Uses only `peer` from now on; `None`: the sources in rounds.
    pub(crate) fn follow(&mut self, peer: Option<usize>) {
        self.followed = peer;
    }

    /// Whether a peer is followed.
    pub(crate) fn is_following(&self) -> bool {
        self.followed.is_some()
    }

    /// Whether a source other than this one, of another origin, has not failed in this round.
    pub(crate) fn has_alternative(&self, source: usize) -> bool {
        let Some(current) = self.candidates.get(source) else { return false };
        self.next(|candidate| !candidate.has_failed && candidate.origin != current.origin).is_some()
    }

    /// Records progress: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.rounds = 0;
        self.peer_failures = 0;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        for candidate in &mut self.candidates {
            candidate.has_failed = false;
        }
    }

    /// Records a failure of `source`. `has_bytes`: whether the fill has bytes.
    ///
    /// # Errors
    /// There were too many failures, or this node failed.
    pub(crate) fn failed(
        &mut self,
        source: usize,
        error: &DownloadError,
        has_bytes: bool,
    ) -> Result<Next, FillError> {
        match error {
            DownloadError::Local(error) => Err(error.clone()),
            _ if source >= self.candidates.len() => self.peer_failed(source, error),
            _ => self.candidate_failed(source, error, has_bytes),
        }
    }

    fn candidate_failed(
        &mut self,
        source: usize,
        error: &DownloadError,
        has_bytes: bool,
    ) -> Result<Next, FillError> {
        let (cause, scope) = classify(error, has_bytes);
        // The 404 of a second source must not hide that the first one was only overloaded.
        if weight(&cause) >= weight(&self.error) {
            self.error = cause;
        }
        self.is_size_disputed |= matches!(error, DownloadError::WrongSize);
        let is_for_good = matches!(scope, Scope::SourceForGood | Scope::OriginForGood);
        if is_for_good || !self.is_sticky {
            self.rule_out(source, scope);
            self.current = (source + 1) % self.candidates.len();
            if let Some(next) = self.next(|candidate| !candidate.has_failed) {
                self.current = next;
                return Ok(Next::Other);
            }
        }
        self.end_round(has_bytes)
    }

    fn rule_out(&mut self, source: usize, scope: Scope) {
        let Some(origin) = self.candidates.get(source).map(|candidate| candidate.origin.clone()) else {
            return;
        };
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            let is_ruled_out = index == source
                || (matches!(scope, Scope::Origin | Scope::OriginForGood) && candidate.origin == origin);
            candidate.has_failed |= is_ruled_out;
            candidate.is_excluded |=
                is_ruled_out && matches!(scope, Scope::SourceForGood | Scope::OriginForGood);
        }
    }

    fn end_round(&mut self, has_bytes: bool) -> Result<Next, FillError> {
        self.begin_round();
        self.rounds += 1;
        let max = if has_bytes { self.max_rounds } else { MAX_ROUNDS_AT_START.min(self.max_rounds) };
        if self.rounds >= max {
            return Err(self.error.clone());
        }
        self.current()?;
        if std::mem::take(&mut self.is_size_disputed) {
            self.count_restart(self.candidates.len(), FillError::WrongSize)?;
            return Ok(Next::StartOver);
        }
        Ok(Next::Retry)
    }

    /// # Errors
    /// `error`: there were too many restarts, one for each source, one for bytes of an earlier fill, and one for bytes of
    /// several responses of each source.
    fn count_restart(&mut self, sources: usize, error: FillError) -> Result<(), FillError> {
        self.restarts += 1;
        if self.restarts > 2 * sources + 1 { Err(error) } else { Ok(()) }
    }

    fn peer_failed(&mut self, peer: usize, error: &DownloadError) -> Result<Next, FillError> {
        if let DownloadError::Upstream(limited @ UpstreamError::RateLimited { .. }) = error {
            return Err(FillError::Upstream(limited.clone()));
        }
        if self.followed != Some(peer) {
            return Ok(Next::Ignore);
        }
        self.peer_failures += 1;
        if self.peer_failures < self.max_rounds {
            return Ok(Next::ProbePeer);
        }
        self.followed = None;
        Ok(Next::Retry)
    }

    /// Records that the blob is complete and does not match its digest. A single contributor is excluded, unless its bytes
    /// came in several responses for the first time; several are not, and the next attempt keeps to one source. `sources`:
    /// the number of sources, followed peers included.
    ///
    /// # Errors
    /// No source is left, no source has sent a byte, or there were too many mismatches.
    pub(crate) fn mismatched(&mut self, contributors: Contributors, sources: usize) -> Result<(), FillError> {
        if contributors == Contributors::None {
            return Err(FillError::WrongDigest);
        }
        self.count_restart(sources, FillError::WrongDigest)?;
        match contributors {
            Contributors::One { source, responses } => {
                if let Some(candidate) = self.candidates.get_mut(source) {
                    if responses > 1 && !std::mem::replace(&mut candidate.was_repeated, true) {
                        self.is_sticky = true;
                    } else {
                        candidate.is_excluded = true;
                        self.error = FillError::WrongDigest;
                    }
                }
            }
            Contributors::None | Contributors::Several => self.is_sticky = true,
        }
        if self.followed.is_some() {
            self.peer_mismatches += 1;
            if self.peer_mismatches >= MAX_PEER_MISMATCHES {
                self.followed = None;
            }
        }
        self.current().map(drop)
    }
}

/// The error for readers, and the scope of the exclusion.
fn classify(error: &DownloadError, has_bytes: bool) -> (FillError, Scope) {
    match error {
        DownloadError::Local(error) => (error.clone(), Scope::Source),
        DownloadError::WrongSize => (FillError::WrongSize, Scope::Source),
        DownloadError::Interrupted | DownloadError::RangeIgnored => {
            (FillError::Upstream(UpstreamError::invalid_response(error.to_string())), Scope::Source)
        }
        DownloadError::TooSlow => (FillError::Upstream(UpstreamError::Timeout), Scope::Origin),
        DownloadError::Upstream(error) => (FillError::Upstream(error.clone()), scope(error, has_bytes)),
    }
}

fn scope(error: &UpstreamError, has_bytes: bool) -> Scope {
    match error {
        UpstreamError::NotFound
        | UpstreamError::Denied
        | UpstreamError::LoginRequired
        | UpstreamError::DigestMismatch
        | UpstreamError::TooLarge => Scope::SourceForGood,
        UpstreamError::RateLimited { .. }
        | UpstreamError::Offline
        | UpstreamError::LoginRefused { .. }
        | UpstreamError::LoginUnreadable { .. } => Scope::OriginForGood,
        // A wrong login that is sent again may lock its account.
        UpstreamError::ProxyRefused { refusal: ProxyRefusal::Login, .. } => Scope::OriginForGood,
        // The readers of a fill with bytes wait for the circuit, or the proxy; others get an early error.
        UpstreamError::CircuitOpen { .. } | UpstreamError::ProxyRefused { .. } if !has_bytes => {
            Scope::OriginForGood
        }
        UpstreamError::CircuitOpen { .. }
        | UpstreamError::ProxyRefused { .. }
        | UpstreamError::Busy
        | UpstreamError::Timeout
        | UpstreamError::Unreachable(_)
        | UpstreamError::Server { status: 502..=504 } => Scope::Origin,
        UpstreamError::Server { .. }
        | UpstreamError::InvalidResponse(_)
        | UpstreamError::RangeNotSatisfiable => Scope::Source,
    }
}

/// How informative an error is about the absence of the blob: an overloaded source may have the
/// blob, and a source that denies access does not report whether it has it.
fn weight(error: &FillError) -> u8 {
    match error {
        FillError::NoSource => 0,
        FillError::Upstream(UpstreamError::NotFound) => 1,
        FillError::Upstream(UpstreamError::Denied) => 2,
        _ => 3,
    }
}
