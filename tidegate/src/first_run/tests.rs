use std::{os::unix::fs::PermissionsExt as _, sync::Barrier, thread};

use tempfile::TempDir;

use super::*;
use crate::{
    cli::{Common, UpstreamFlag},
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
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = create_data_dir(&file).unwrap_err().to_string();
    assert!(error.starts_with("the folder ") && error.contains("cannot be used"), "{error}");

    fs::write(folder.path().join(LINK_KEY_FILE), "abc").unwrap();
    let error = link_keys(&settings(folder.path(), &[], &[])).unwrap_err().to_string();
    assert!(error.contains("must hold at least 64 hexadecimal digits"), "{error}");
}

#[test]
fn the_banner_begins_with_the_address_and_ends_with_a_command_that_works() {
    let listening =
        Listening { public: "0.0.0.0:41234".parse().unwrap(), internal: "127.0.0.1:5100".parse().unwrap() };
    let folder = Path::new("/srv/tidegate");
    assert_eq!(
        banner(Mode::Serve, listening, &settings(folder, &[], &[])),
        "listening on http://0.0.0.0:41234\n\
         health and metrics on http://127.0.0.1:5100\n\
         data in /srv/tidegate\n\
         try: docker pull 127.0.0.1:41234/docker.io/library/alpine:latest"
    );
    let only = ("TIDEGATE_UPSTREAM", r#"[{ name = "local", url = "http://127.0.0.1:1" }]"#);
    let text = banner(Mode::RegistryApi, listening, &settings(folder, &[], &[only]));
    assert!(text.ends_with("\ntry: docker pull 127.0.0.1:41234/local/NAME:TAG"), "{text}");
    let root = ("TIDEGATE_NAMESPACE", r#"[{ prefix = "", upstream = "docker.io" }]"#);
    let text = banner(Mode::Serve, listening, &settings(folder, &[], &[root]));
    assert!(text.ends_with("\ntry: docker pull 127.0.0.1:41234/library/alpine:latest"), "{text}");
    assert!(!banner(Mode::ContentApp, listening, &settings(folder, &[], &[])).contains("try:"));
}
