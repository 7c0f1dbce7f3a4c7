use std::{os::unix::fs::PermissionsExt as _, sync::Barrier, thread};

use oci_types::{Digest, Millis, RepositoryName};
use tempfile::TempDir;

use super::*;
use crate::{
    cli::{Flags, Mode},
    config,
};

fn settings(data_dir: &Path, env: &[(&str, &str)]) -> Settings {
    let flags = Flags { data_dir: Some(data_dir.display().to_string()), ..Flags::default() };
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(&flags.overrides(Mode::Serve), env).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A link, which depends on the id and on the secret of the signing key.
fn link(keys: &LinkKeys) -> String {
    let repository = RepositoryName::parse("a/b").unwrap();
    keys.sign(&repository, &Digest::sha256(b""), Millis(0))
}

#[test]
fn the_key_of_the_data_directory_is_created_for_its_owner_only_and_kept() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("a/b");
    let settings = settings(&data_dir, &[]);
    let first = link(&load(&settings).unwrap());
    assert_eq!((mode(&data_dir), mode(&data_dir.join(FILE))), (0o700, 0o600));
    assert_eq!(link(&load(&settings).unwrap()), first);
    let id = first.split_once("key=").unwrap().1.split_once('&').unwrap().0;
    assert_eq!(id.len(), ID_LENGTH);
    assert_eq!(fs::read_to_string(data_dir.join(FILE)).unwrap().trim().len(), 64);
    assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1, "there are no other files");
}

#[test]
fn processes_that_start_together_create_one_key() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder.path().join("data"), &[]);
    let start = Barrier::new(8);
    let links: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    link(&load(&settings).unwrap())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(links.iter().all(|link| link == &links[0]));
    assert_eq!(fs::read_dir(&settings.data_dir).unwrap().count(), 1);
}

#[test]
fn configured_keys_are_used_instead_and_none_is_created() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.key");
    fs::write(&file, "ab".repeat(32)).unwrap();
    let list = format!("[{{ id = \"2026a\", file = {:?} }}]", file.to_str().unwrap());
    let data_dir = folder.path().join("data");
    let settings = settings(&data_dir, &[("TIDEGATE_CONTENT__LINK_KEYS", &list)]);
    let expected = LinkKeys::new(LinkKey::new("2026a", &[0xab; 32]).unwrap(), Vec::new());
    assert_eq!(link(&load(&settings).unwrap()), link(&expected));
    assert!(!data_dir.exists());
    assert!(!format!("{settings:?}").contains("171"), "the secret is not shown");
}

#[test]
fn a_file_with_something_else_is_refused() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(FILE), "abc").unwrap();
    let error = load(&settings(folder.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("must contain at least 64 hexadecimal digits"), "{error}");
}
