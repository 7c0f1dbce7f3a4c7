//! Repositories, identified by what they mirror.

use std::fmt;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl,
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, each, load, on};
use crate::schema::repositories;
use oci_types::{Millis, RepositoryName};

/// What a repository is, independent of the names that clients use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repository {
    /// Mirrors a repository of an upstream.
    Proxy {
        /// The name of the configured upstream.
        upstream: String,
        /// The name of the repository at the upstream.
        upstream_name: RepositoryName,
    },
    /// Has no upstream.
    Hosted {
        /// Its name.
        name: RepositoryName,
    },
}

/// The identity of a repository as text: `UPSTREAM@NAME`, or `@NAME` for a hosted one. A name contains no `@`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryKey(String);

impl Repository {
    /// The identity of the repository.
    pub fn key(&self) -> RepositoryKey {
        RepositoryKey(match self {
            Self::Proxy { upstream, upstream_name } => format!("{upstream}@{upstream_name}"),
            Self::Hosted { name } => format!("@{name}"),
        })
    }

    /// The upstream and the name there. `None` for a hosted repository.
    pub fn source(&self) -> Option<(&str, &RepositoryName)> {
        match self {
            Self::Proxy { upstream, upstream_name } => Some((upstream, upstream_name)),
            Self::Hosted { .. } => None,
        }
    }
}

impl RepositoryKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A repository to record content in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRepository {
    /// The name that clients use.
    pub name: RepositoryName,
    /// What it is.
    pub repository: Repository,
}

/// Up to `limit` names that clients use, in byte order, starting after `after` (distribution-spec:
/// the catalog of earlier registries).
///
/// # Errors
/// [`DbError`].
pub async fn catalog(
    db: &Db,
    after: Option<&RepositoryName>,
    limit: i64,
) -> Result<Vec<RepositoryName>, DbError> {
    use repositories as r;
    let after = after.map_or_else(String::new, |name| name.as_str().to_owned());
    load!(db, r::table.filter(r::name.gt(after)).order(r::name).limit(limit).select(r::name).distinct())
}

/// Writes the last-pull times of repositories. A later recorded time is kept.
///
/// # Errors
/// [`DbError`].
pub async fn touch_pulls(db: &Db, mut pulls: Vec<(RepositoryKey, Millis)>) -> Result<(), DbError> {
    // Writers lock rows in the same order, so that they do not deadlock.
    pulls.sort();
    db.transaction(move |conn| {
        async move {
            use repositories as r;
            each!(conn, pulls, |(key, at)| diesel::update(r::table)
                .filter(r::key.eq(key.0))
                .filter(r::last_pull_at.assume_not_null().lt(at).or(r::last_pull_at.is_null()))
                .set(r::last_pull_at.eq(at)));
            Ok(())
        }
        .boxed()
    })
    .await
}

/// The id of the row of a repository, which is inserted or renamed if needed.
pub(super) async fn ensure(conn: &mut Conn, new: &NewRepository, now: Millis) -> Result<i64, DbError> {
    use repositories as r;
    let key = new.repository.key();
    let query = r::table.filter(r::key.eq(key.as_str())).select((r::id, r::name));
    let found: Option<(i64, RepositoryName)> = on!(conn, |c| query.first(c)).optional()?;
    // An unnecessary write would serialize all transactions that record content in the repository.
    if let Some((id, name)) = found
        && name == new.name
    {
        return Ok(id);
    }
    let source = new.repository.source();
    let query = diesel::insert_into(r::table)
        .values((
            r::key.eq(key.as_str()),
            r::name.eq(&new.name),
            r::upstream.eq(source.map(|(upstream, _)| upstream)),
            r::upstream_name.eq(source.map(|(_, name)| name)),
            r::created_at.eq(now),
        ))
        .on_conflict(r::key)
        .do_update()
        .set(r::name.eq(excluded(r::name)))
        .returning(r::id);
    Ok(on!(conn, |c| query.get_result(c))?)
}
