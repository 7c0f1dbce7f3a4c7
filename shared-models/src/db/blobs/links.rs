//! Which repository may serve which blob.

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
        each, insert_all, on,
        repositories::{self, NewRepository},
        update_only_if,
    },
    schema::{blobs, repository_blobs},
};
use oci_types::{Digest, Millis};

/// A blob that upstream has confirmed and that no manifest of the repository names yet.
#[derive(Debug, Clone)]
pub struct NewPending {
    /// The repository that it was asked through.
    pub repository: NewRepository,
    /// The blob.
    pub digest: Digest,
    /// Its length as upstream says, in bytes.
    pub size: Option<u64>,
    /// The present.
    pub now: Millis,
}

#[derive(Insertable)]
#[diesel(table_name = repository_blobs)]
struct NewLink {
    repository_id: i64,
    digest: Digest,
    pending: bool,
    touched_at: i64,
    confirmed: bool,
}

/// Records a blob with its source and links it to the repository as pending and confirmed, in one transaction. A link that
/// is there is confirmed, and counts as touched. Returns the blob as it is then.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn record_pending(db: &Db, new: &NewPending) -> Result<BlobRow, DbError> {
    let new = new.clone();
    db.transaction(move |conn| {
        async move {
            use repository_blobs as rb;
            let NewPending { repository, digest, size, now } = new;
            let repository_id = repositories::ensure(conn, &repository, now).await?;
            let blob = [(digest.clone(), size)];
            super::ensure(conn, &blob, &repository.upstream, &repository.upstream_name).await?;
            let link = NewLink {
                repository_id,
                digest: digest.clone(),
                pending: true,
                touched_at: now.0,
                confirmed: true,
            };
            let query = diesel::insert_into(rb::table)
                .values(link)
                .on_conflict((rb::repository_id, rb::digest))
                .do_update()
                .set((rb::touched_at.eq(excluded(rb::touched_at)), rb::confirmed.eq(true)));
            on!(conn, |c| query.execute(c))?;
            let query = blobs::table.find(digest).select((blobs::digest, blobs::size, blobs::state));
            super::blob(on!(conn, |c| query.first(c))?)
        }
        .boxed()
    })
    .await
}

/// Links blobs that a manifest of the repository names; pending links become ordinary ones.
pub(in crate::db) async fn confirm(
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
        touched_at: now.0,
        confirmed: false,
    });
    insert_all!(conn, links.collect(), |rows| update_only_if(
        diesel::insert_into(rb::table)
            .values(rows)
            .on_conflict((rb::repository_id, rb::digest))
            .do_update()
            .set(rb::pending.eq(false)),
        rb::pending.eq(true),
    ));
    Ok(())
}

/// Takes away the pending links that nobody has touched since `before`, and says how many.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn expire_pending(db: &Db, before: Millis) -> Result<u64, DbError> {
    db.write(move |conn| {
        async move {
            use repository_blobs as rb;
            let query = diesel::delete(rb::table.filter(rb::pending.and(rb::touched_at.lt(before.0))));
            let removed = on!(conn, |c| query.execute(c))?;
            Ok(u64::try_from(removed).unwrap_or(u64::MAX))
        }
        .boxed()
    })
    .await
}

/// Writes when blobs were last read; a time that is already later stays. Their pending links count as touched.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn touch_read(db: &Db, reads: &[(Digest, Millis)]) -> Result<(), DbError> {
    let mut reads = reads.to_vec();
    // One order for all who write many rows, so that no two wait for each other.
    reads.sort();
    db.transaction(move |conn| {
        async move {
            use repository_blobs as rb;
            each!(conn, reads.clone(), |(digest, at)| diesel::update(blobs::table.find(digest))
                .filter(blobs::last_read_at.is_null().or(blobs::last_read_at.assume_not_null().lt(at.0)))
                .set(blobs::last_read_at.eq(at.0)));
            each!(conn, reads, |(digest, at)| diesel::update(rb::table)
                .filter(rb::digest.eq(digest).and(rb::pending).and(rb::touched_at.lt(at.0)))
                .set(rb::touched_at.eq(at.0)));
            Ok(())
        }
        .boxed()
    })
    .await
}
