//! From the settings to where blobs are stored.

use anyhow::Context as _;
use blob_store::{Addressing, BlobStore, Presigner, S3Config, S3Timeouts};

use crate::{
    config::{self, Settings, StorageKind},
    data_dir,
};

/// Opens the store. Blocks; to be called on the main runtime, which does the store's work.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<BlobStore> {
    if settings.storage.kind == StorageKind::Local {
        return Ok(BlobStore::open_local(&settings.data_dir)?);
    }
    let folder = settings.storage.cache_dir.as_deref().unwrap_or(&settings.data_dir);
    data_dir::create(folder)?;
    let cache_size = settings.storage.cache_size.map(config::ByteSize::bytes);
    Ok(BlobStore::open_s3(&s3_config(settings)?, folder, cache_size)?)
}

/// What signs URLs to stored blobs for clients, where they are to be sent to the object store.
pub(crate) fn presigner(settings: &Settings) -> anyhow::Result<Option<Presigner>> {
    let sent_there = settings.storage.kind == StorageKind::S3 && settings.storage.redirect;
    sent_there.then(|| Ok(Presigner::new(&s3_config(settings)?)?)).transpose()
}

fn s3_config(settings: &Settings) -> anyhow::Result<S3Config> {
    let storage = &settings.storage;
    // A loaded configuration has one.
    let bucket = storage.bucket.as_deref().context("the storage has no bucket")?;
    Ok(S3Config {
        region: storage.region.clone(),
        endpoint: storage.endpoint.clone(),
        public_endpoint: storage.public_endpoint.clone(),
        addressing: match storage.addressing {
            config::Addressing::Path => Addressing::Path,
            config::Addressing::VirtualHost => Addressing::VirtualHost,
        },
        prefix: storage.prefix.clone().unwrap_or_default(),
        keys: storage.keys.clone(),
        ca_pem: storage.ca_pem.clone(),
        part_size: storage.part_size.bytes(),
        timeouts: S3Timeouts {
            connect: storage.connect_timeout,
            answer: storage.answer_timeout,
            read: storage.read_timeout,
            upload: storage.upload_timeout,
            complete: storage.complete_timeout,
        },
        ..S3Config::new(bucket)
    })
}
