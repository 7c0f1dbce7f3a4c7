//! What clients pull, and what must then be found in their stores.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use flate2::read::GzDecoder;
use tidegate_tests::image::{Format, Image, Index, random_bytes};

/// The repository at the upstream registry.
pub(super) const REPOSITORY: &str = "library/x";

/// An image of five layers, one of them of several megabytes, for the platform that the tests run on, and another one
/// for another platform, which no client here asks for.
pub(super) fn source(format: Format) -> Index {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let large = random_bytes(11, 5_000_000);
    let image = Image::builder(1)
        .format(format)
        .platform(&format!("linux/{here}"))
        .root_layer()
        .file_layer(&[("usr/", b""), ("usr/share/", b""), ("usr/share/large", &large)])
        .file_layer(&[("etc/motd", b"The tide comes in.\n"), ("etc/empty", b"")])
        .file_layer(&[("etc/motd", b"The tide goes out.\n"), (&"long/".repeat(30), b"")])
        .file_layer(&[("usr/share/small", &random_bytes(12, 70_000))])
        .build();
    let other = Image::builder(2).format(format).platform("linux/s390x").root_layer().build();
    match format {
        Format::Oci => Index::of(&[&other, &image]),
        Format::Docker => Index::docker_list(&[&other, &image]),
    }
}

/// The image that clients choose from [`source`].
pub(super) fn chosen(index: &Index) -> &Image {
    index.images.last().unwrap()
}

/// The layers as they are unpacked: what a client still has that has thrown the compressed ones away.
pub(super) fn unpacked(image: &Image) -> impl Iterator<Item = Bytes> {
    image.layers.iter().map(|layer| {
        let mut tar = Vec::new();
        GzDecoder::new(&*layer.bytes).read_to_end(&mut tar).unwrap();
        Bytes::from(tar)
    })
}

/// The content of every file below a folder.
pub(super) fn files_below(folder: &Path) -> HashSet<Bytes> {
    let mut found = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(Bytes::from(std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    found
}

/// Asserts that a client has all these bytes, exactly, among what it has.
pub(super) fn assert_holds(held: &HashSet<Bytes>, expected: impl IntoIterator<Item = Bytes>) {
    for (number, bytes) in expected.into_iter().enumerate() {
        let sizes = || held.iter().map(Bytes::len).collect::<Vec<_>>();
        assert!(held.contains(&bytes), "no. {number}, of {} bytes, is not among {:?}", bytes.len(), sizes());
    }
}
