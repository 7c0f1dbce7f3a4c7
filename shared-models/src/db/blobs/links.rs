//! The links of repositories to blobs.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods, QueryDsl,
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use crate::{
    db::{
        Conn, Db, DbError,
        blobs::BlobRow,
        each, execute, insert_all, on,
        repositories::{self, NewRepository},
    },
    schema::{blobs, repository_blobs},
};
use oci_types::{Digest, Millis};

/// A blob that the upstream has confirmed. No manifest of the repository names it yet.
#[derive(Debug, Clone)]
pub struct NewPending {
    /// The repository that the client requested it from.
    pub repository: NewRepository,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size that the upstream states, in bytes.
    pub size: Option<u64>,
    /// The current time.
    pub now: Millis,
}

#[derive(Insertable)]
#[diesel(table_name = repository_blobs, treat_none_as_default_value = false)]
struct NewLink {
    repository_id: i64,
    digest: Digest,
    pending: bool,
    touched_at: Millis,
    confirmed: bool,
}

/// Records a blob with its source, and a pending, confirmed link of the repository to it, in one
/// transaction. An existing link becomes confirmed, and its time is updated. Returns the resulting
/// blob, with the stated size.
///
/// # Errors
/// [`DbError`].
pub async fn record_pending(db: &Db, new: &NewPending) -> Result<BlobRow, DbError> {
    let new = new.clone();
    db.transaction(move |conn| {
        async move {
            use repository_blobs as rb;
            let NewPending { repository, digest, size, now } = new;
            let repository_id = repositories::ensure(conn, &repository, now).await?;
            super::ensure(conn, &[(digest.clone(), size)], repository.repository.source()).await?;
            let link = NewLink {
                repository_id,
                digest: digest.clone(),
                pending: true,
                touched_at: now,
                confirmed: true,
            };
            let query = diesel::insert_into(rb::table)
                .values(link)
                .on_conflict((rb::repository_id, rb::digest))
                .do_update()
                .set((rb::touched_at.eq(excluded(rb::touched_at)), rb::confirmed.eq(true)));
            on!(conn, |c| query.execute(c))?;
            let query = blobs::table.find(&digest).select(super::columns::<super::Row>());
            let row: super::Row = on!(conn, |c| query.first(c))?;
            let stated = size.map(super::to_column);
            Ok(row.into_blob(stated.as_slice()))
        }
        .boxed()
    })
    .await
}

/// Links blobs that a manifest of the repository names. Pending links are no longer pending
/// afterwards.
pub(in crate::db) async fn claim(
    conn: &mut Conn,
    repository_id: i64,
    digests: impl Iterator<Item = Digest>,
    now: Millis,
) -> Result<(), DbError> {
    use repository_blobs as rb;
    let links = digests.map(|digest| NewLink {
        repository_id,
        digest,
        pending: false,
        touched_at: now,
        confirmed: false,
    });
    insert_all!(
        conn,
        links.collect(),
        |rows| diesel::insert_into(rb::table)
            .values(rows)
            .on_conflict((rb::repository_id, rb::digest))
            .do_update()
            .set(rb::pending.eq(false)),
        if rb::pending.eq(true)
    );
    Ok(())
}

/// Deletes the pending links that were last touched before `before`. Returns their number.
///
/// # Errors
/// [`DbError`].
pub async fn expire_pending(db: &Db, before: Millis) -> Result<usize, DbError> {
    use repository_blobs as rb;
    execute!(db, diesel::delete(rb::table.filter(rb::pending.and(rb::touched_at.lt(before)))))
}

/// Writes the last-read times of blobs, and updates the times of their pending links. A later
/// recorded time is kept.
///
/// # Errors
/// [`DbError`].
pub async fn touch_read(db: &Db, mut reads: Vec<(Digest, Millis)>) -> Result<(), DbError> {
    // Writers lock rows in the same order, so that they do not deadlock.
    reads.sort();
    db.transaction(move |conn| {
        async move {
            use repository_blobs as rb;
            each!(conn, reads.clone(), |(digest, at)| diesel::update(blobs::table.find(digest))
                .filter(blobs::last_read_at.is_null().or(blobs::last_read_at.assume_not_null().lt(at)))
                .set(blobs::last_read_at.eq(at)));
            each!(conn, reads, |(digest, at)| diesel::update(rb::table)
                .filter(rb::digest.eq(digest).and(rb::pending).and(rb::touched_at.lt(at)))
                .set(rb::touched_at.eq(at)));
            Ok(())
        }
        .boxed()
    })
    .await
}
