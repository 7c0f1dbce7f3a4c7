//! The scan at start that measures the disk usage.

use std::{sync::Arc, thread};

use super::{Disk, walk};
use crate::layout::Shard;

/// Measures the stored blobs on a separate thread, which does not delay the shutdown of the
/// runtime.
pub(super) fn start(disk: &Arc<Disk>) {
    let disk = Arc::downgrade(disk);
    let scan = move || {
        for shard in Shard::all() {
            let Some(disk) = disk.upgrade() else { return };
            disk.usage.count(shard, || match walk::blobs(&disk.layout, shard) {
                Ok(blobs) => blobs.iter().map(|blob| blob.size).sum(),
                Err(error) => {
                    tracing::warn!(%error, "failed to scan stored blobs; reported disk usage will be too low");
                    0
                }
            });
        }
    };
    if let Err(error) = thread::Builder::new().name("disk-usage-scan".to_owned()).spawn(scan) {
        tracing::warn!(%error, "failed to start the disk usage scan; reported usage will be too low");
    }
}
