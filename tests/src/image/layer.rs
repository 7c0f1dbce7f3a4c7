//! Bytes of layers.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use super::{Layer, sha256};

/// A layer with the digest of what it unpacks to.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) diff_id: String,
    pub(super) layer: Layer,
}

/// So many bytes that look random (SplitMix64), the same for the same seed.
pub fn random_bytes(seed: u64, size: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    Bytes::from(bytes)
}

/// A gzip'ed tar of these files. A path that ends in a slash is a directory.
pub(super) fn file_layer(files: &[(&str, &[u8])]) -> Made {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let directory = path.ends_with('/');
        let mut header = Header::new_ustar();
        header.set_entry_type(if directory { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(if directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(u64::try_from(content.len()).expect("a length fits in 64 bits"));
        archive.append_data(&mut header, path, *content).expect("writing to memory");
    }
    let tar = archive.into_inner().expect("writing to memory");
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    gzip.write_all(&tar).expect("writing to memory");
    let bytes = Bytes::from(gzip.finish().expect("writing to memory"));
    Made { diff_id: sha256(&tar), layer: Layer { digest: sha256(&bytes), bytes } }
}
