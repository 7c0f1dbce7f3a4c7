use std::path::Path;

use super::*;
use crate::{cli::Flags, config::load};

fn settings(data_dir: &Path, env: &[(&str, &str)]) -> Settings {
    let flags = Flags { data_dir: Some(data_dir.display().to_string()), ..Flags::default() };
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&flags.overrides(Mode::Serve), env).unwrap()
}

#[test]
fn the_banner_begins_with_the_address_and_ends_with_a_command_that_works() {
    let listening =
        Listening { public: "0.0.0.0:41234".parse().unwrap(), internal: "127.0.0.1:5100".parse().unwrap() };
    let folder = Path::new("/srv/tidegate");
    assert_eq!(
        banner(Mode::Serve, listening, &settings(folder, &[])),
        "listening on http://0.0.0.0:41234\n\
         health and metrics on http://127.0.0.1:5100\n\
         data in /srv/tidegate\n\
         try: docker pull 127.0.0.1:41234/docker.io/library/alpine:latest"
    );
    let only = ("TIDEGATE_UPSTREAM", r#"[{ name = "local", url = "http://127.0.0.1:1" }]"#);
    let text = banner(Mode::RegistryApi, listening, &settings(folder, &[only]));
    assert!(text.ends_with("\ntry: docker pull 127.0.0.1:41234/local/NAME:TAG"), "{text}");
    let root = ("TIDEGATE_NAMESPACE", r#"[{ prefix = "", upstream = "docker.io" }]"#);
    let text = banner(Mode::Serve, listening, &settings(folder, &[root]));
    assert!(text.ends_with("\ntry: docker pull 127.0.0.1:41234/library/alpine:latest"), "{text}");
    assert!(!banner(Mode::ContentApp, listening, &settings(folder, &[])).contains("try:"));
}
