use std::time::Duration;

use content_app::FinishAbandoned;

use super::*;
use crate::config::environment::variable;

#[test]
fn without_any_configuration_the_defaults_apply() {
    let settings = load_with(Flags::default(), &[]).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("./tidegate-data"));
    assert_eq!(settings.api.server.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.api.server.internal_listen.to_string(), "127.0.0.1:5100");
    assert_eq!(settings.content.server.listen.to_string(), "127.0.0.1:5001");
    assert_eq!(settings.content.server.internal_listen.to_string(), "127.0.0.1:5101");
    assert_eq!(settings.content.links.link_lifetime, Duration::from_secs(1200));
    assert_eq!(settings.content.fills.hold_back, 65_536);
    assert_eq!(settings.database.url, "sqlite://./tidegate-data/tidegate.db");
    assert_eq!(settings.storage.tier.kind, StorageKind::Local);
    assert_eq!(settings.log.filter, "info,actix_server=warn,actix_http=off");
}

#[test]
fn a_flag_is_over_a_variable_is_over_the_file_is_over_the_default() {
    let written = Written::new("[api]\nlisten = \"127.0.0.1:1\"\nworkers = 1\nmax_page_size = 1\n");
    let flags = Flags {
        config: Some(written.file.clone()),
        listen: Some("127.0.0.1:3".parse().unwrap()),
        ..Flags::default()
    };
    let env = [("TIDEGATE_API__LISTEN", "127.0.0.1:2"), ("TIDEGATE_API__WORKERS", "2")];
    let api = load_with(flags, &env).unwrap().api;
    assert_eq!(api.server.listen.port(), 3);
    assert_eq!(api.server.workers.map(usize::from), Some(2));
    assert_eq!(api.service.max_page_size, 1);
    assert_eq!(api.service.negative_ttl, Duration::from_secs(10));
}

#[test]
fn the_listen_flags_belong_to_the_service_that_runs() {
    let flags = Flags {
        listen: Some("127.0.0.1:3".parse().unwrap()),
        internal_listen: Some("127.0.0.1:4".parse().unwrap()),
        ..Flags::default()
    };
    let settings = load(&flags.overrides(Mode::ContentApp), variables(&[])).unwrap();
    assert_eq!(
        (settings.content.server.listen.port(), settings.content.server.internal_listen.port()),
        (3, 4)
    );
    assert_eq!(settings.api.server.listen.port(), 5000);
    let settings = load(&flags.overrides(Mode::RegistryApi), variables(&[])).unwrap();
    assert_eq!((settings.api.server.listen.port(), settings.api.server.internal_listen.port()), (3, 4));
    assert_eq!(settings.content.server.listen.port(), 5001);
}

#[test]
fn the_database_is_in_the_data_directory_unless_it_is_set() {
    let flags = Flags { data_dir: Some("/srv/t".to_owned()), ..Flags::default() };
    let settings = load_with(flags.clone(), &[]).unwrap();
    assert_eq!(settings.database.url, "sqlite:///srv/t/tidegate.db");
    let env = [("TIDEGATE_DATABASE__URL", "postgres://u:secret@db/t"), ("TIDEGATE_DATA_DIR", "/srv/other")];
    let settings = load_with(flags, &env).unwrap();
    assert_eq!(settings.database.url, "postgres://u:secret@db/t");
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
    assert_eq!(settings.content.links.link_keys.first().unwrap().id, "a");
    assert_eq!(settings.content.fills.hold_back, 1 << 20);
    assert_eq!(settings.content.fills.segment, 4096);
    assert_eq!(settings.content.node.heartbeat, Duration::from_millis(500));
    assert_eq!(settings.content.fills.finish_abandoned, FinishAbandoned::Always);
    assert_eq!(settings.content.server.public_url.unwrap().host_str(), Some("content.example.com"));
    assert!(!settings.storage.tier.redirect);
    assert_eq!(settings.namespaces.first().unwrap().include.matching("library/a"), Some("library/*"));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let env = [("TIDEGATE_API__LISTEN", ""), ("TIDEGATE_CONFIG", ""), ("TIDEGATE_UPSTREAM", "")];
    assert_eq!(load_with(Flags::default(), &env).unwrap().api.server.listen.port(), 5000);
}

#[test]
fn other_variables_are_ignored() {
    let env =
        [("TIDEGATE_PORT", "tcp://10.0.0.1:80"), ("TIDEGATE_API_SERVICE_HOST", "10.0.0.1"), ("HOME", "/")];
    assert!(load_with(Flags::default(), &env).is_ok());
}

#[test]
fn the_configuration_file_can_be_named_in_a_variable() {
    let written = Written::new("data_dir = \"/from/file\"");
    let env = [("TIDEGATE_CONFIG", written.file.to_str().unwrap())];
    assert_eq!(load_with(Flags::default(), &env).unwrap().data_dir, PathBuf::from("/from/file"));
}

#[test]
fn the_log_filter_has_short_variables() {
    let filter = |env: &[(&str, &str)]| load_with(Flags::default(), env).unwrap().log.filter;
    assert_eq!(filter(&[("RUST_LOG", "warn")]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "warn"), ("TIDEGATE_LOG", "debug")]), "debug");
    assert_eq!(filter(&[("TIDEGATE_LOG", "debug"), ("TIDEGATE_LOG__FILTER", "trace")]), "trace");
}

#[test]
fn no_two_keys_share_a_variable() {
    let mut variables: Vec<String> =
        all_keys().into_iter().map(|(section, key)| variable(section, key)).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all);
}

#[test]
fn secrets_are_read_from_files_and_variables() {
    use secrecy::ExposeSecret as _;
    use upstream_client::Credentials;

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

        [[upstream]]
        name = "c"
        url = "https://c.example.com:5000"
        credential_helper = "docker-credential-ecr-login"
    "#;
    let written = Written::new(document)
        .with("password", "from file\n")
        .with("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let settings = written.load(&[("B_PASSWORD", "from variable")]).unwrap();
    let login = |index: usize| settings.upstreams[index].client.credentials.clone().unwrap();
    let Credentials::File { path, .. } = login(0) else { panic!("{:?}", login(0)) };
    assert_eq!(path.file_name().unwrap(), "password");
    let Credentials::Fixed { password, .. } = login(1) else { panic!("{:?}", login(1)) };
    assert_eq!(password.expose_secret(), "from variable");
    let Credentials::Helper { program, server } = login(2) else { panic!("{:?}", login(2)) };
    assert_eq!((program.as_str(), server.as_str()), ("docker-credential-ecr-login", "c.example.com:5000"));
    assert!(settings.upstreams[0].client.ca_pem.is_some());
    for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
        assert!(!shown.contains("from file") && !shown.contains("from variable"), "{shown}");
    }
}

#[test]
fn the_shown_configuration_can_be_read_again() {
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
    let shown = written.load(&[]).unwrap().to_toml().unwrap();
    assert!(!shown.contains("secret@"), "{shown}");
    assert_eq!(Written::new(&shown).load(&[]).unwrap().to_toml().unwrap(), shown);
}
