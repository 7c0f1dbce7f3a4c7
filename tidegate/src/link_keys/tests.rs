use std::{os::unix::fs::PermissionsExt as _, sync::Barrier, thread};

use tempfile::TempDir;

use super::*;
use crate::{
    cli::{Common, Mode, UpstreamFlag},
    config::load,
};

fn settings(data_dir: &Path, upstream: &[(&str, &str)], env: &[(&str, &str)]) -> Settings {
    let upstream = upstream
        .iter()
        .map(|(name, url)| UpstreamFlag { name: (*name).to_owned(), url: url.parse().unwrap() })
        .collect();
    let flags = Common { data_dir: Some(data_dir.to_owned()), upstream, ..Common::default() };
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&flags, Mode::Serve, env).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn bytes(key: &LoadedLinkKey) -> Vec<u8> {
    key.secret.expose_secret().to_vec()
}

#[test]
fn the_data_folder_and_the_link_key_are_made_for_their_owner_alone_and_kept() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("a/b");
    let settings = settings(&data_dir, &[], &[]);
    let first = link_keys(&settings).unwrap();
    assert_eq!((mode(&data_dir), mode(&data_dir.join(LINK_KEY_FILE))), (0o700, 0o600));
    let again = link_keys(&settings).unwrap();
    assert_eq!((first.len(), bytes(&first[0]).len(), first[0].id.len()), (1, 32, 8));
    assert_eq!((&first[0].id, bytes(&first[0])), (&again[0].id, bytes(&again[0])));
    assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn processes_that_start_together_get_one_key() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder.path().join("data"), &[], &[]);
    let start = Barrier::new(8);
    let keys: Vec<Vec<u8>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    bytes(&link_keys(&settings).unwrap()[0])
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| key == &keys[0]));
    assert_eq!(fs::read_dir(&settings.data_dir).unwrap().count(), 1);
}

#[test]
fn configured_link_keys_are_used_instead_and_nothing_is_made() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.key");
    fs::write(&file, "ab".repeat(32)).unwrap();
    let list = format!("[{{ id = \"2026a\", file = {:?} }}]", file.to_str().unwrap());
    let data_dir = folder.path().join("data");
    let keys = link_keys(&settings(&data_dir, &[], &[("TIDEGATE_CONTENT__LINK_KEYS", &list)])).unwrap();
    assert_eq!((keys[0].id.as_str(), bytes(&keys[0])), ("2026a", vec![0xab; 32]));
    assert!(!data_dir.exists());
    assert!(!format!("{keys:?}").contains("171"), "the secret is not shown");
}

#[test]
fn what_is_in_the_way_is_said() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(LINK_KEY_FILE), "abc").unwrap();
    let error = link_keys(&settings(folder.path(), &[], &[])).unwrap_err().to_string();
    assert!(error.contains("must hold at least 64 hexadecimal digits"), "{error}");
}
