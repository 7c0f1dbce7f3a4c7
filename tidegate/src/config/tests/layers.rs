use std::time::Duration;

use super::*;
use crate::config::environment::forms;

#[test]
fn without_any_configuration_the_defaults_hold() {
    let settings = load_with(Common::default(), &[]).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("./tidegate-data"));
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.api.internal_listen.to_string(), "127.0.0.1:5100");
    assert_eq!(settings.content.listen.to_string(), "127.0.0.1:5001");
    assert_eq!(settings.content.internal_listen.to_string(), "127.0.0.1:5101");
    assert_eq!(settings.content.link_lifetime, Duration::from_secs(1200));
    assert_eq!(settings.content.hold_back.bytes(), 65_536);
    assert_eq!(settings.database.url.expose(), "sqlite://./tidegate-data/tidegate.db");
    assert_eq!(settings.storage.kind, StorageKind::Local);
    assert_eq!(settings.log.filter, "info,actix_server=warn,actix_http=off");
}

#[test]
fn a_flag_is_over_a_variable_is_over_the_file_is_over_the_default() {
    let written = Written::new("[api]\nlisten = \"127.0.0.1:1\"\nworkers = 1\ncatalog_max = 1\n");
    let flags = Common {
        config: Some(written.file.clone()),
        listen: Some("127.0.0.1:3".parse().unwrap()),
        ..Common::default()
    };
    let env = [("TIDEGATE_API__LISTEN", "127.0.0.1:2"), ("TIDEGATE_API__WORKERS", "2")];
    let api = load_with(flags, &env).unwrap().api;
    assert_eq!(api.listen.port(), 3);
    assert_eq!(api.workers, Some(2));
    assert_eq!(api.catalog_max, 1);
    assert_eq!(api.negative_ttl, Duration::from_secs(10));
}

#[test]
fn the_listen_flags_belong_to_the_service_that_runs() {
    let flags = Common {
        listen: Some("127.0.0.1:3".parse().unwrap()),
        internal_listen: Some("127.0.0.1:4".parse().unwrap()),
        ..Common::default()
    };
    let settings = load(&flags, Mode::ContentApp, variables(&[])).unwrap();
    assert_eq!((settings.content.listen.port(), settings.content.internal_listen.port()), (3, 4));
    assert_eq!(settings.api.listen.port(), 5000);
    let settings = load(&flags, Mode::RegistryApi, variables(&[])).unwrap();
    assert_eq!((settings.api.listen.port(), settings.api.internal_listen.port()), (3, 4));
    assert_eq!(settings.content.listen.port(), 5001);
}

#[test]
fn the_data_folder_moves_the_database_unless_that_is_named() {
    let flags = Common { data_dir: Some(PathBuf::from("/srv/t")), ..Common::default() };
    let settings = load_with(flags.clone(), &[]).unwrap();
    assert_eq!(settings.database.url.expose(), "sqlite:///srv/t/tidegate.db");
    let env = [("TIDEGATE_DATABASE__URL", "postgres://u:secret@db/t"), ("TIDEGATE_DATA_DIR", "/srv/other")];
    let settings = load_with(flags, &env).unwrap();
    assert_eq!(settings.database.url.expose(), "postgres://u:secret@db/t");
    assert_eq!(settings.data_dir, PathBuf::from("/srv/t"));
}

#[test]
fn every_type_can_be_written_in_a_variable() {
    let written = Written::new("").with("a.key", &"ab".repeat(32));
    let keys = format!("[{{ id = \"a\", file = \"{}/a.key\" }}]", written.folder.path().display());
    let env = [
        ("TIDEGATE_CONTENT__LINK_KEYS", keys.as_str()),
        ("TIDEGATE_CONTENT__HOLD_BACK", "1MiB"),
        ("TIDEGATE_CONTENT__SEGMENT", "4096"),
        ("TIDEGATE_CONTENT__HEARTBEAT", "500ms"),
        ("TIDEGATE_CONTENT__FINISH_ABANDONED", "always"),
        ("TIDEGATE_CONTENT__PUBLIC_URL", "https://content.example.com"),
        ("TIDEGATE_STORAGE__REDIRECT", "false"),
        ("TIDEGATE_NAMESPACE", r#"[{ prefix = "hub", upstream = "docker.io", include = ["library/*"] }]"#),
    ];
    let settings = written.load(&env).unwrap();
    assert_eq!(settings.content.link_keys.first().unwrap().id, "a");
    assert_eq!(settings.content.hold_back.bytes(), 1 << 20);
    assert_eq!(settings.content.segment.bytes(), 4096);
    assert_eq!(settings.content.heartbeat, Duration::from_millis(500));
    assert_eq!(settings.content.finish_abandoned, FinishAbandoned::Always);
    assert_eq!(settings.content.public_url.unwrap().host_str(), Some("content.example.com"));
    assert!(!settings.storage.redirect);
    assert_eq!(settings.namespaces.first().unwrap().include, ["library/*"]);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let env = [("TIDEGATE_API__LISTEN", ""), ("TIDEGATE_CONFIG", ""), ("TIDEGATE_UPSTREAM", "")];
    assert_eq!(load_with(Common::default(), &env).unwrap().api.listen.port(), 5000);
}

#[test]
fn variables_that_are_not_of_the_configuration_are_left_alone() {
    let env =
        [("TIDEGATE_PORT", "tcp://10.0.0.1:80"), ("TIDEGATE_API_SERVICE_HOST", "10.0.0.1"), ("HOME", "/")];
    assert!(load_with(Common::default(), &env).is_ok());
}

#[test]
fn the_configuration_file_can_be_named_in_a_variable() {
    let written = Written::new("data_dir = \"/from/file\"");
    let env = [("TIDEGATE_CONFIG", written.file.to_str().unwrap())];
    assert_eq!(load_with(Common::default(), &env).unwrap().data_dir, PathBuf::from("/from/file"));
}

#[test]
fn the_log_filter_has_short_variables() {
    let filter = |env: &[(&str, &str)]| load_with(Common::default(), env).unwrap().log.filter;
    assert_eq!(filter(&[("RUST_LOG", "warn")]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "warn"), ("TIDEGATE_LOG", "debug")]), "debug");
    assert_eq!(filter(&[("TIDEGATE_LOG", "debug"), ("TIDEGATE_LOG__FILTER", "trace")]), "trace");
}

#[test]
fn no_two_keys_share_a_variable() {
    let mut variables: Vec<String> = forms().into_iter().map(|form| form.variable).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all);
}

#[test]
fn secrets_are_read_from_files_and_variables() {
    use secrecy::ExposeSecret as _;

    let document = r#"
        [[upstream]]
        name = "a"
        url = "https://a.example.com"
        username = "robot"
        password_file = "HERE/password"
        ca_file = "HERE/ca.pem"

        [[upstream]]
        name = "b"
        url = "https://b.example.com"
        username = "robot"
        password_env = "B_PASSWORD"
    "#;
    let written = Written::new(document)
        .with("password", "from file\n")
        .with("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let settings = written.load(&[("B_PASSWORD", "from variable")]).unwrap();
    let password = |index: usize| settings.upstreams[index].credentials.clone().unwrap().password;
    assert_eq!(password(0).expose_secret(), "from file");
    assert_eq!(password(1).expose_secret(), "from variable");
    assert!(settings.upstreams[0].ca_pem.is_some());
    for shown in [settings.to_toml(), format!("{settings:?}")] {
        assert!(!shown.contains("from file") && !shown.contains("from variable"), "{shown}");
    }
}

#[test]
fn what_is_shown_is_read_again_as_the_same() {
    let document = r#"
        data_dir = "/srv/a \"quoted\" folder"
        [content]
        link_keys = [{ id = "2026a", file = "HERE/a.key" }]
        public_url = "https://content.example.com"
        [database]
        url = "postgres://u:secret@db/t"
        [[upstream]]
        name = "hub"
        url = "https://registry-1.docker.io"
        stale_if_error = "7d"
        proxy = "http://u:secret@proxy:3128"
        [[namespace]]
        prefix = ""
        upstream = "hub"
        include = ["library/*"]
        platforms = ["linux/amd64"]
    "#;
    let written = Written::new(document).with("a.key", &"ab".repeat(32));
    let shown = written.load(&[]).unwrap().to_toml();
    assert!(!shown.contains("secret@"), "{shown}");
    assert_eq!(Written::new(&shown).load(&[]).unwrap().to_toml(), shown);
}
