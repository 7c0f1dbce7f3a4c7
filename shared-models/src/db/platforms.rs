//! The platforms that clients of a namespace request: the default for completing images in the background.

use diesel::{ExpressionMethods, QueryDsl, upsert::excluded};

use super::{Db, DbError, execute, load};
use crate::schema::namespace_platforms;
use oci_types::{Millis, manifest::Platform};

/// Records that a client of the namespace requested the platform.
///
/// # Errors
/// [`DbError`].
pub async fn touch(db: &Db, namespace: &str, platform: &Platform, now: Millis) -> Result<(), DbError> {
    use namespace_platforms as p;
    let upsert = diesel::insert_into(p::table)
        .values((
            p::namespace.eq(namespace.to_owned()),
            p::platform.eq(platform.to_string()),
            p::asked_at.eq(now),
        ))
        .on_conflict((p::namespace, p::platform))
        .do_update()
        .set(p::asked_at.eq(excluded(p::asked_at)));
    execute!(db, upsert)?;
    Ok(())
}

/// The platforms of the namespace, the last requested first.
///
/// # Errors
/// [`DbError`].
pub async fn list(db: &Db, namespace: &str) -> Result<Vec<Platform>, DbError> {
    use namespace_platforms as p;
    let query = p::table
        .filter(p::namespace.eq(namespace.to_owned()))
        .order((p::asked_at.desc(), p::platform))
        .select(p::platform);
    let platforms: Vec<String> = load!(db, query)?;
    // An index can state any text; text that is not a platform is skipped.
    Ok(platforms.iter().filter_map(|text| text.parse().ok()).collect())
}
