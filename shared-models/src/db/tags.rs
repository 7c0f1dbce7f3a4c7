//! Tags and their history.

use diesel::{
    ExpressionMethods, IntoSql, NullableExpressionMethods, OptionalExtension, QueryDsl, dsl::case_when,
    sql_types::BigInt,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, on};
use crate::schema::{repositories, tag_moves, tags};
use oci_types::{Digest, Millis, RepositoryName, Tag};

/// Where a tag points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// The manifest.
    pub manifest: Digest,
    /// Since when it is this one.
    pub moved_at: Millis,
    /// When upstream was last asked and said so.
    pub checked_at: Millis,
}

/// That upstream was asked for a tag. Of several answers, those of other processes included, the one that was asked for
/// last counts, in whichever order they are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCheck {
    /// The tag.
    pub tag: Tag,
    /// When the request to upstream began.
    pub began: Millis,
}

/// One row of a tag's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagMove {
    /// Where it pointed; none when it came to be.
    pub from: Option<Digest>,
    /// Where it points from then on; none when it was taken away.
    pub to: Option<Digest>,
    /// When.
    pub at: Millis,
    /// Why.
    pub cause: TagCause,
}

/// Why a tag changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagCause {
    /// It was pulled for the first time.
    Pulled,
    /// Upstream had moved it.
    Moved,
}

/// The tag, in one indexed query.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn find(db: &Db, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRow>, DbError> {
    let (repository, tag) = (repository.clone(), tag.clone());
    db.read(move |conn| async move { select(conn, &repository, &tag).await }.boxed()).await
}

type Row = (Digest, i64, i64);

fn row((manifest, moved_at, checked_at): Row) -> TagRow {
    TagRow { manifest, moved_at: Millis(moved_at), checked_at: Millis(checked_at) }
}

async fn select(conn: &mut Conn, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRow>, DbError> {
    let query = tags::table
        .inner_join(repositories::table)
        .filter(repositories::name.eq(repository))
        .filter(tags::name.eq(tag))
        .select((tags::manifest, tags::moved_at, tags::checked_at));
    let found: Option<Row> = on!(conn, |c| query.first(c)).optional()?;
    Ok(found.map(row))
}

/// Records that the upstream has confirmed the tag, where it still names `manifest`; a check that began later stays.
/// Returns the tag as it is now, which names another manifest when another process has recorded a later check; `None` when
/// the tag is gone.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn mark_checked(
    db: &Db,
    repository: &RepositoryName,
    check: &TagCheck,
    manifest: &Digest,
) -> Result<Option<TagRow>, DbError> {
    let (repository, check, manifest) = (repository.clone(), check.clone(), manifest.clone());
    db.write(move |conn| {
        async move {
            let id = repositories::table.filter(repositories::name.eq(&repository)).select(repositories::id);
            let began = check.began.0.into_sql::<BigInt>();
            let later = case_when(tags::checked_at.lt(check.began.0), began).otherwise(tags::checked_at);
            let query = diesel::update(tags::table)
                .filter(tags::repository_id.eq_any(id))
                .filter(tags::name.eq(&check.tag))
                .filter(tags::manifest.eq(manifest))
                .set(tags::checked_at.eq(later))
                .returning((tags::manifest, tags::moved_at, tags::checked_at));
            let confirmed: Option<Row> = on!(conn, |c| query.get_result(c)).optional()?;
            match confirmed {
                Some(confirmed) => Ok(Some(row(confirmed))),
                None => select(conn, &repository, &check.tag).await,
            }
        }
        .boxed()
    })
    .await
}

/// Up to `limit` tags in byte order, those after `after` (distribution-spec: end-8).
///
/// # Errors
/// [`DbError`], as every query.
pub async fn list(
    db: &Db,
    repository: &RepositoryName,
    after: Option<&Tag>,
    limit: i64,
) -> Result<Vec<Tag>, DbError> {
    let after = after.map_or_else(String::new, |tag| tag.as_str().to_owned());
    let repository = repository.clone();
    db.read(move |conn| {
        async move {
            // With a join PostgreSQL would sort all that comes after; so it reads the index in order and stops.
            let id = repositories::table.filter(repositories::name.eq(repository)).select(repositories::id);
            let query = tags::table
                .filter(tags::repository_id.nullable().eq(id.single_value()))
                .filter(tags::name.gt(after))
                .order(tags::name)
                .limit(limit)
                .select(tags::name);
            Ok(on!(conn, |c| query.load(c))?)
        }
        .boxed()
    })
    .await
}

/// The last `limit` changes of a tag, the latest first.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn history(
    db: &Db,
    repository: &RepositoryName,
    tag: &Tag,
    limit: i64,
) -> Result<Vec<TagMove>, DbError> {
    type Row = (Option<Digest>, Option<Digest>, i64, i16);
    let (repository, tag) = (repository.clone(), tag.clone());
    db.read(move |conn| {
        async move {
            use tag_moves as m;
            let query = m::table
                .inner_join(repositories::table)
                .filter(repositories::name.eq(repository))
                .filter(m::name.eq(tag))
                .order(m::id.desc())
                .limit(limit)
                .select((m::from, m::to, m::at, m::cause));
            let rows: Vec<Row> = on!(conn, |c| query.load(c))?;
            let row = |(from, to, at, cause)| {
                Ok(TagMove { from, to, at: Millis(at), cause: TagCause::from_number(cause)? })
            };
            rows.into_iter().map(row).collect()
        }
        .boxed()
    })
    .await
}

/// Points the tag at `manifest`, unless a check that began later has been recorded, and returns the tag as it is then. Only
/// where it pointed elsewhere is there a row of history, and exactly one, however many do this at once.
pub(super) async fn point(
    conn: &mut Conn,
    repository_id: i64,
    check: &TagCheck,
    manifest: &Digest,
) -> Result<TagRow, DbError> {
    let (tag, began) = (&check.tag, check.began.0);
    // Each statement says what it expects to find. Where another got there first, look again.
    for _ in 0..10 {
        let this = tags::table.filter(tags::repository_id.eq(repository_id)).filter(tags::name.eq(tag));
        let query = this.select((tags::manifest, tags::moved_at, tags::checked_at));
        let found: Option<Row> = on!(conn, |c| query.first(c)).optional()?;
        let found = match found.map(row) {
            Some(later) if later.checked_at > check.began => return Ok(later),
            found => found,
        };
        let moved_at = found.as_ref().filter(|found| found.manifest == *manifest).map(|found| found.moved_at);
        let from = found.map(|found| found.manifest);
        let changed = match &from {
            Some(from) => {
                let this = this.filter(tags::manifest.eq(from)).filter(tags::checked_at.le(began));
                if from == manifest {
                    let query = diesel::update(this).set(tags::checked_at.eq(began));
                    on!(conn, |c| query.execute(c))?
                } else {
                    let query = diesel::update(this).set((
                        tags::manifest.eq(manifest),
                        tags::moved_at.eq(began),
                        tags::checked_at.eq(began),
                    ));
                    on!(conn, |c| query.execute(c))?
                }
            }
            None => {
                let query = diesel::insert_into(tags::table)
                    .values((
                        tags::repository_id.eq(repository_id),
                        tags::name.eq(tag),
                        tags::manifest.eq(manifest),
                        tags::moved_at.eq(began),
                        tags::checked_at.eq(began),
                    ))
                    .on_conflict_do_nothing();
                on!(conn, |c| query.execute(c))?
            }
        };
        if changed == 0 {
            continue;
        }
        let checked_at = check.began;
        let now = TagRow { manifest: manifest.clone(), moved_at: moved_at.unwrap_or(checked_at), checked_at };
        if from.as_ref() == Some(manifest) {
            return Ok(now);
        }
        let cause = if from.is_none() { TagCause::Pulled } else { TagCause::Moved };
        let query = diesel::insert_into(tag_moves::table).values((
            tag_moves::repository_id.eq(repository_id),
            tag_moves::name.eq(tag),
            tag_moves::from.eq(from),
            tag_moves::to.eq(manifest),
            tag_moves::at.eq(began),
            tag_moves::cause.eq(cause.number()),
        ));
        on!(conn, |c| query.execute(c))?;
        return Ok(now);
    }
    Err(DbError::Unavailable("the tag is being moved by many at once".to_owned()))
}

impl TagCause {
    fn number(self) -> i16 {
        match self {
            Self::Pulled => 0,
            Self::Moved => 1,
        }
    }

    fn from_number(number: i16) -> Result<Self, DbError> {
        match number {
            0 => Ok(Self::Pulled),
            1 => Ok(Self::Moved),
            other => Err(DbError::Broken(format!("{other} is no cause of a tag's move"))),
        }
    }
}
