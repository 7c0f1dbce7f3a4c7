//! Opens the storage of blobs.

use blob_store::{BlobStore, Presigner};

use crate::{
    config::{Settings, StorageKind},
    data_dir,
};

/// Opens the storage. Blocks; must be called on the main runtime, which runs the storage's tasks.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<BlobStore> {
    let tier = &settings.storage.tier;
    if tier.kind == StorageKind::Local {
        return Ok(BlobStore::open_local(&settings.data_dir)?.with_keep_free(tier.keep_free));
    }
    let directory = tier.cache_dir.as_deref().unwrap_or(&settings.data_dir);
    data_dir::create(directory)?;
    let store = BlobStore::open_s3(&settings.storage.s3, directory, tier.cache_size)?;
    Ok(store.with_keep_free(tier.keep_free))
}

/// Presigns URLs of stored blobs for clients. `None`: clients are not redirected to the object store.
pub(crate) fn presigner(settings: &Settings) -> anyhow::Result<Option<Presigner>> {
    let redirects = settings.storage.tier.kind == StorageKind::S3 && settings.storage.tier.redirect;
    redirects.then(|| Ok(Presigner::new(&settings.storage.s3)?)).transpose()
}
