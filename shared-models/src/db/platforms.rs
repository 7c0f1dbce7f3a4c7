//! The platforms that clients of a namespace have asked for, by which images are completed in the background.

use diesel::{ExpressionMethods, QueryDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use futures::FutureExt;

use super::{Db, DbError, on};
use crate::schema::namespace_platforms;
use oci_types::{Millis, manifest::Platform};

/// Writes that a client of the namespace asked for the platform.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn note(db: &Db, namespace: &str, platform: &Platform, now: Millis) -> Result<(), DbError> {
    let (namespace, platform) = (namespace.to_owned(), platform.to_string());
    db.write(move |conn| {
        async move {
            use namespace_platforms as p;
            let query = diesel::insert_into(p::table)
                .values((p::namespace.eq(namespace), p::platform.eq(platform), p::asked_at.eq(now.0)))
                .on_conflict((p::namespace, p::platform))
                .do_update()
                .set(p::asked_at.eq(excluded(p::asked_at)));
            on!(conn, |c| query.execute(c))?;
            Ok(())
        }
        .boxed()
    })
    .await
}

/// The platforms of the namespace, the last asked for first.
///
/// # Errors
/// [`DbError`], as every query.
pub async fn list(db: &Db, namespace: &str) -> Result<Vec<Platform>, DbError> {
    let namespace = namespace.to_owned();
    db.read(move |conn| {
        async move {
            use namespace_platforms as p;
            let query = p::table
                .filter(p::namespace.eq(namespace))
                .order((p::asked_at.desc(), p::platform))
                .select(p::platform);
            let platforms: Vec<String> = on!(conn, |c| query.load(c))?;
            // An image may call its platform anything; what no client can ask for is left out.
            Ok(platforms.iter().filter_map(|text| text.parse().ok()).collect())
        }
        .boxed()
    })
    .await
}
