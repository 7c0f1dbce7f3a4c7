//! Which source is next: a pure record of what failed.

use upstream_client::UpstreamError;

use crate::error::{DownloadError, FillError};

#[cfg(test)]
mod tests;

/// Failures without a byte in between before a fill that has no bytes fails: its readers get an early error.
const MAX_FAILURES_AT_START: u32 = 3;

/// Digest mismatches of blobs from peers before the upstreams are used instead.
const MAX_PEER_MISMATCHES: u32 = 2;

/// Which source of a fill is next. Sources are named by index: first those that are used in turn, then followed peers.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Why a source is not used again in this fill.
    excluded: Vec<Option<FillError>>,
    current: usize,
    /// Failures since the last byte.
    failures: u32,
    max_failures: u32,
    /// The error that says most.
    error: FillError,
    /// A source that fails is used again before the next one.
    sticky: bool,
    /// The peer whose fill is followed.
    followed: Option<usize>,
    /// Failures of followed peers since the last byte.
    peer_failures: u32,
    peer_mismatches: u32,
    mismatches: usize,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another source is next, since this one is excluded.
    Other,
    /// Retry after a delay that grows with each failure.
    Retry,
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
    /// One source, by index.
    One(usize),
    /// Several sources, or an earlier fill whose source is unknown.
    Several,
}

impl Choice {
    /// A choice among `sources`, which fails after `max_failures` without a byte in between.
    pub(crate) fn new(sources: usize, max_failures: u32) -> Self {
        Self {
            excluded: vec![None; sources],
            current: 0,
            failures: 0,
            max_failures,
            error: FillError::NoSource,
            sticky: false,
            followed: None,
            peer_failures: 0,
            peer_mismatches: 0,
            mismatches: 0,
        }
    }

    /// No source, although some are recorded: their upstreams are not configured.
    pub(crate) fn unconfigured(max_failures: u32) -> Self {
        Self { error: FillError::Unconfigured, ..Self::new(0, max_failures) }
    }

    /// The source that is next.
    ///
    /// # Errors
    /// All sources are excluded; the error that says most.
    pub(crate) fn current(&self) -> Result<usize, FillError> {
        if let Some(peer) = self.followed {
            return Ok(peer);
        }
        let usable = |index: &usize| self.excluded.get(*index).is_some_and(Option::is_none);
        let count = self.excluded.len();
        (0..count).map(|step| (self.current + step) % count).find(usable).ok_or_else(|| self.error.clone())
    }

    /// Uses only `peer` from now on; `None`: the sources in turn.
    pub(crate) fn follow(&mut self, peer: Option<usize>) {
        self.followed = peer;
    }

    /// Whether a peer is followed.
    pub(crate) fn is_following(&self) -> bool {
        self.followed.is_some()
    }

    /// Records that bytes arrived: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
        self.peer_failures = 0;
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
        if let DownloadError::Local(error) = error {
            return Err(error.clone());
        }
        if source >= self.excluded.len() {
            self.peer_failed(source, error)
        } else {
            self.rotate(source, error, has_bytes)
        }
    }

    fn rotate(&mut self, source: usize, error: &DownloadError, has_bytes: bool) -> Result<Next, FillError> {
        let (cause, is_final) = match error {
            DownloadError::Local(error) => return Err(error.clone()),
            DownloadError::WrongSize => (FillError::WrongSize, true),
            DownloadError::Changed => {
                (FillError::Upstream(UpstreamError::invalid_response(error.to_string())), false)
            }
            DownloadError::Upstream(error) => (FillError::Upstream(error.clone()), is_final(error)),
        };
        // The 404 of a second source must not hide that the first one was only overloaded.
        if weight(&cause) >= weight(&self.error) {
            self.error = cause.clone();
        }
        if is_final {
            self.exclude(source, cause);
        } else {
            self.failures += 1;
        }
        if is_final || !self.sticky {
            self.current = (source + 1) % self.excluded.len().max(1);
        }
        let max = if has_bytes { self.max_failures } else { MAX_FAILURES_AT_START.min(self.max_failures) };
        if self.failures >= max {
            return Err(self.error.clone());
        }
        self.current()?;
        Ok(if is_final { Next::Other } else { Next::Retry })
    }

    fn peer_failed(&mut self, peer: usize, error: &DownloadError) -> Result<Next, FillError> {
        if let DownloadError::Upstream(limited @ UpstreamError::RateLimited { .. }) = error {
            return Err(FillError::Upstream(limited.clone()));
        }
        if self.followed != Some(peer) {
            return Ok(Next::Ignore);
        }
        self.peer_failures += 1;
        if self.peer_failures < self.max_failures {
            return Ok(Next::ProbePeer);
        }
        self.followed = None;
        Ok(Next::Retry)
    }

    /// Records that the blob is complete and does not match its digest. A single contributor is excluded; several are not,
    /// and the next attempt keeps to one source. `sources`: the number of sources, followed peers included.
    ///
    /// # Errors
    /// No source is left, no source has sent a byte, or there were too many mismatches: one for each source, one for bytes
    /// of an earlier fill, and one for bytes of several sources.
    pub(crate) fn mismatched(&mut self, contributors: Contributors, sources: usize) -> Result<(), FillError> {
        self.mismatches += 1;
        if contributors == Contributors::None || self.mismatches > sources + 2 {
            return Err(FillError::WrongDigest);
        }
        match contributors {
            Contributors::One(source) if source < self.excluded.len() => {
                self.error = FillError::WrongDigest;
                self.exclude(source, FillError::WrongDigest);
            }
            Contributors::One(_) => {}
            Contributors::None | Contributors::Several => self.sticky = true,
        }
        if self.followed.is_some() {
            self.peer_mismatches += 1;
            if self.peer_mismatches >= MAX_PEER_MISMATCHES {
                self.followed = None;
            }
        }
        self.current().map(drop)
    }

    fn exclude(&mut self, source: usize, cause: FillError) {
        if let Some(excluded) = self.excluded.get_mut(source) {
            *excluded = Some(cause);
        }
    }
}

/// How much an error says about why there is no blob: an overloaded source may have it, and a source that denies access
/// does not say whether it has it.
fn weight(error: &FillError) -> u8 {
    match error {
        FillError::NoSource => 0,
        FillError::Upstream(UpstreamError::NotFound) => 1,
        FillError::Upstream(UpstreamError::Denied) => 2,
        _ => 3,
    }
}

/// Whether a retry with the same source in this fill is pointless.
fn is_final(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotFound
        | UpstreamError::Denied
        | UpstreamError::RateLimited { .. }
        | UpstreamError::RangeNotSatisfiable
        | UpstreamError::DigestMismatch
        | UpstreamError::TooLarge
        | UpstreamError::Offline => true,
        UpstreamError::Server { .. }
        | UpstreamError::InvalidResponse(_)
        | UpstreamError::Timeout
        | UpstreamError::Unreachable(_)
        | UpstreamError::CircuitOpen { .. } => false,
    }
}
