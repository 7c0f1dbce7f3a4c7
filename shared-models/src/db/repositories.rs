//! Repositories: the names that clients use.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl,
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, each, on, update_only_if};
use crate::schema::repositories;
use oci_types::{Millis, RepositoryName};

/// A name that clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The row.
    pub id: i64,
    /// What clients call it.
    pub name: RepositoryName,
    /// The configured upstream that it copies; none for a repository of one's own.
    pub upstream: Option<String>,
    /// Its name there.
    pub upstream_name: Option<RepositoryName>,
}

/// A repository that copies one upstream, as it is recorded when upstream has confirmed something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRepository {
    /// What clients call it.
    pub name: RepositoryName,
    /// The configured upstream.
    pub upstream: String,
    /// Its name there.
    pub upstream_name: RepositoryName,
}

type Row = (i64, RepositoryName, Option<String>, Option<RepositoryName>);

/// The repository of that name.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn find(db: &Db, name: &RepositoryName) -> Result<Option<Repository>, DbError> {
    let name = name.clone();
    db.read(move |conn| {
        async move {
            let row = select(conn, &name).await?;
            Ok(row.map(|(id, name, upstream, upstream_name)| Repository {
                id,
                name,
                upstream,
                upstream_name,
            }))
        }
        .boxed()
    })
    .await
}

async fn select(conn: &mut Conn, name: &RepositoryName) -> Result<Option<Row>, DbError> {
    use repositories as r;
    let query = r::table.filter(r::name.eq(name)).select((r::id, r::name, r::upstream, r::upstream_name));
    Ok(on!(conn, |c| query.first::<Row>(c)).optional()?)
}

/// Up to `limit` names in byte order, those after `after` (distribution-spec: the catalog of older registries).
///
/// # Errors
/// [`DbError`], as every query.
pub async fn catalog(
    db: &Db,
    after: Option<&RepositoryName>,
    limit: i64,
) -> Result<Vec<RepositoryName>, DbError> {
    let after = after.map_or_else(String::new, |name| name.as_str().to_owned());
    db.read(move |conn| {
        async move {
            use repositories as r;
            let query = r::table.filter(r::name.gt(after)).order(r::name).limit(limit).select(r::name);
            Ok(on!(conn, |c| query.load(c))?)
        }
        .boxed()
    })
    .await
}

/// Writes when repositories were last pulled from; a time that is already later stays.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn touch_pulls(db: &Db, pulls: &[(RepositoryName, Millis)]) -> Result<(), DbError> {
    let mut pulls = pulls.to_vec();
    // One order for all who write many rows, so that no two wait for each other.
    pulls.sort();
    db.transaction(move |conn| {
        async move {
            use repositories as r;
            each!(conn, pulls, |(name, at)| diesel::update(r::table)
                .filter(r::name.eq(name))
                .filter(r::last_pull_at.assume_not_null().lt(at.0).or(r::last_pull_at.is_null()))
                .set(r::last_pull_at.eq(at.0)));
            Ok(())
        }
        .boxed()
    })
    .await
}

/// The id of the row for `new`, made or brought up to date where needed. A repository of one's own is not turned into
/// a copy of an upstream.
pub(super) async fn ensure(conn: &mut Conn, new: &NewRepository, now: Millis) -> Result<i64, DbError> {
    use repositories as r;
    // Mostly it is there. Writing it again would make all who record something in it wait for each other.
    if let Some((id, _, upstream, upstream_name)) = select(conn, &new.name).await?
        && upstream.as_ref() == Some(&new.upstream)
        && upstream_name.as_ref() == Some(&new.upstream_name)
    {
        return Ok(id);
    }
    let upsert = diesel::insert_into(r::table)
        .values((
            r::name.eq(&new.name),
            r::upstream.eq(&new.upstream),
            r::upstream_name.eq(&new.upstream_name),
            r::created_at.eq(now.0),
        ))
        .on_conflict(r::name)
        .do_update()
        .set((r::upstream.eq(excluded(r::upstream)), r::upstream_name.eq(excluded(r::upstream_name))));
    let query = update_only_if(upsert, r::upstream.is_not_null()).returning(r::id);
    let id: Option<i64> = on!(conn, |c| query.get_result(c)).optional()?;
    id.ok_or_else(|| DbError::Conflict(format!("the repository {} has no upstream", new.name)))
}
