//! Tags and their history.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, IntoSql, NullableExpressionMethods,
    OptionalExtension, QueryDsl, Queryable, Selectable,
    deserialize::FromSqlRow,
    dsl::case_when,
    expression::AsExpression,
    sql_types::{BigInt, SmallInt},
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Conn, Db, DbError, columns, first, load, on, repositories::RepositoryKey};
use crate::schema::{repositories, tag_moves, tags};
use oci_types::{Digest, Millis, Tag, small_int_column, time::MAX_CLOCK_ERROR};

/// The maximum number of attempts to move a tag that other transactions move at the same time.
const MAX_ATTEMPTS: usize = 10;

/// The number of changes of a tag that are kept: the last ones.
pub const MAX_MOVES: i64 = 100;

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = tags)]
pub struct TagRow {
    /// The manifest that the tag names.
    pub manifest: Digest,
    /// When it began to name this manifest.
    pub moved_at: Millis,
    /// Start time of the last check that the upstream confirmed.
    pub checked_at: Millis,
}

/// A check of a tag at the upstream. Of several checks, including those of other processes, the one
/// that began last takes precedence, regardless of the order in which they are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCheck {
    /// The tag.
    pub tag: Tag,
    /// When the request to the upstream began.
    pub began: Millis,
}

/// A change of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = tag_moves)]
pub struct TagMove {
    /// The manifest before. `None` at the creation of the tag.
    pub from: Option<Digest>,
    /// The manifest after. `None` at the deletion of the tag.
    pub to: Option<Digest>,
    /// When the tag changed.
    pub at: Millis,
    /// Why it changed.
    pub cause: TagCause,
}

/// Why a tag changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = SmallInt)]
pub enum TagCause {
    /// A client pulled it for the first time.
    Pulled,
    /// The upstream moved it.
    Moved,
}

small_int_column!(TagCause { Pulled = 0, Moved = 1 });

#[derive(Insertable)]
#[diesel(table_name = tag_moves)]
struct NewMove<'a> {
    repository_id: i64,
    name: &'a Tag,
    from: Option<&'a Digest>,
    to: &'a Digest,
    at: Millis,
    cause: TagCause,
}

/// The tag.
///
/// # Errors
/// [`DbError`].
pub async fn find(db: &Db, repository: &RepositoryKey, tag: &Tag) -> Result<Option<TagRow>, DbError> {
    let query = tags::table
        .inner_join(repositories::table)
        .filter(repositories::key.eq(repository.as_str().to_owned()))
        .filter(tags::name.eq(tag.clone()))
        .select(columns::<TagRow>());
    first!(db, query)
}

/// Records that the upstream has confirmed a check, if the tag still names `manifest`; a later
/// recorded check is kept. Returns the resulting tag. It names another manifest if another process
/// has recorded a later check, and is `None` if the tag is unknown.
///
/// # Errors
/// [`DbError`].
pub async fn mark_checked(
    db: &Db,
    repository: &RepositoryKey,
    check: &TagCheck,
    manifest: &Digest,
) -> Result<Option<TagRow>, DbError> {
    let (repository, check, manifest) = (repository.clone(), check.clone(), manifest.clone());
    db.write(move |conn| {
        async move {
            let key = repository.as_str();
            let id = repositories::table.filter(repositories::key.eq(key)).select(repositories::id);
            let began = check.began.into_sql::<BigInt>();
            let is_earlier = tags::checked_at.lt(check.began).or(tags::checked_at.gt(latest_possible()));
            let later = case_when(is_earlier, began).otherwise(tags::checked_at);
            let query = diesel::update(tags::table)
                .filter(tags::repository_id.eq_any(id))
                .filter(tags::name.eq(&check.tag))
                .filter(tags::manifest.eq(manifest))
                .set(tags::checked_at.eq(later))
                .returning(columns::<TagRow>());
            let confirmed: Option<TagRow> = on!(conn, |c| query.get_result(c)).optional()?;
            if confirmed.is_some() {
                return Ok(confirmed);
            }
            let query = tags::table
                .inner_join(repositories::table)
                .filter(repositories::key.eq(key))
                .filter(tags::name.eq(&check.tag))
                .select(columns::<TagRow>());
            Ok(on!(conn, |c| query.first(c)).optional()?)
        }
        .boxed()
    })
    .await
}

/// Up to `limit` tags in byte order, starting after `after` (distribution-spec: end-8).
///
/// # Errors
/// [`DbError`].
pub async fn list(
    db: &Db,
    repository: &RepositoryKey,
    after: Option<&Tag>,
    limit: i64,
) -> Result<Vec<Tag>, DbError> {
    let after = after.map_or_else(String::new, |tag| tag.as_str().to_owned());
    // PostgreSQL would sort the result of a join. With a subquery it reads the index in order, and
    // stops at the limit.
    let id = repositories::table
        .filter(repositories::key.eq(repository.as_str().to_owned()))
        .select(repositories::id);
    let query = tags::table
        .filter(tags::repository_id.nullable().eq(id.single_value()))
        .filter(tags::name.gt(after))
        .order(tags::name)
        .limit(limit)
        .select(tags::name);
    load!(db, query)
}

/// The last `limit` changes of a tag, the latest first.
///
/// # Errors
/// [`DbError`].
pub async fn history(
    db: &Db,
    repository: &RepositoryKey,
    tag: &Tag,
    limit: i64,
) -> Result<Vec<TagMove>, DbError> {
    use tag_moves as m;
    let query = m::table
        .inner_join(repositories::table)
        .filter(repositories::key.eq(repository.as_str().to_owned()))
        .filter(m::name.eq(tag.clone()))
        .order(m::id.desc())
        .limit(limit)
        .select(columns::<TagMove>());
    load!(db, query)
}

/// The latest plausible time of a check. A later time was recorded with a clock that was ahead; it
/// must not prevent checks of the tag until that time.
fn latest_possible() -> Millis {
    Millis::now().after(MAX_CLOCK_ERROR)
}

/// Moves the tag to `manifest`, unless a check that began later has been recorded. Returns the
/// resulting tag. Each change adds one row to the history, regardless of the number of transactions
/// that record it. The last [`MAX_MOVES`] are kept.
pub(super) async fn point(
    conn: &mut Conn,
    repository_id: i64,
    check: &TagCheck,
    manifest: &Digest,
) -> Result<TagRow, DbError> {
    let (tag, began, latest) = (&check.tag, check.began, latest_possible());
    // Each statement is conditional on the row that was read. If another transaction changed it
    // first, the row is read again.
    for _ in 0..MAX_ATTEMPTS {
        let this = tags::table.filter(tags::repository_id.eq(repository_id)).filter(tags::name.eq(tag));
        let query = this.select(columns::<TagRow>());
        let found: Option<TagRow> = on!(conn, |c| query.first(c)).optional()?;
        let new = TagRow { manifest: manifest.clone(), moved_at: began, checked_at: began };
        let changed = match &found {
            Some(found) if found.checked_at > began && found.checked_at <= latest => return Ok(found.clone()),
            Some(found) => {
                let same = found.manifest == *manifest;
                let new = TagRow { moved_at: if same { found.moved_at } else { began }, ..new.clone() };
                let this = this
                    .filter(tags::manifest.eq(&found.manifest))
                    .filter(tags::checked_at.le(began).or(tags::checked_at.gt(latest)));
                let query = diesel::update(this).set((
                    tags::manifest.eq(manifest),
                    tags::moved_at.eq(new.moved_at),
                    tags::checked_at.eq(began),
                ));
                let changed = on!(conn, |c| query.execute(c))?;
                if changed != 0 && same {
                    return Ok(new);
                }
                changed
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
        let from = found.as_ref().map(|found| &found.manifest);
        let cause = if from.is_none() { TagCause::Pulled } else { TagCause::Moved };
        let change = NewMove { repository_id, name: tag, from, to: manifest, at: began, cause };
        let query = diesel::insert_into(tag_moves::table).values(change);
        on!(conn, |c| query.execute(c))?;
        if from.is_some() {
            delete_old_moves(conn, repository_id, tag).await?;
        }
        return Ok(new);
    }
    Err(DbError::unavailable("the tag is being moved by many transactions".to_owned()))
}

async fn delete_old_moves(conn: &mut Conn, repository_id: i64, tag: &Tag) -> Result<(), DbError> {
    use tag_moves as m;
    let of_tag = || m::repository_id.eq(repository_id).and(m::name.eq(tag));
    let query = m::table.filter(of_tag()).order(m::id.desc()).offset(MAX_MOVES).select(m::id);
    let latest_old: Option<i64> = on!(conn, |c| query.first(c)).optional()?;
    if let Some(latest_old) = latest_old {
        let query = diesel::delete(m::table.filter(of_tag()).filter(m::id.le(latest_old)));
        on!(conn, |c| query.execute(c))?;
    }
    Ok(())
}
