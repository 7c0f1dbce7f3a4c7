use super::*;

fn error(document: &str) -> String {
    Written::new(document).error(&[])
}

/// The error of a document that ends with the only upstream's keys.
fn upstream(keys: &str) -> String {
    error(&format!("[[upstream]]\nname = \"a\"\nurl = \"https://a.example.com\"\n{keys}"))
}

/// The error of a document that ends with the only namespace's keys.
fn namespace(keys: &str) -> String {
    error(&format!("[[namespace]]\nprefix = \"a\"\nupstream = \"quay.io\"\n{keys}"))
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(error("\n[api]\nlissen = \"x\"\n"), "FILE:3: unknown key `lissen`; did you mean `listen`?");
    assert_eq!(error("[contents]\n"), "FILE:1: unknown key `contents`; did you mean `content`?");
    assert_eq!(error("zzz = 1\n"), "FILE:1: unknown key `zzz`");
    assert_eq!(upstream("password = \"x\""), "FILE:4: unknown key `password`; did you mean `password_env`?");
    assert_eq!(upstream("raelms = []"), "FILE:4: unknown key `raelms`; did you mean `realms`?");
    assert_eq!(namespace("includes = []"), "FILE:4: unknown key `includes`; did you mean `include`?");
}

#[test]
fn a_wrong_type_is_stated_with_the_expected_one() {
    assert_eq!(
        error("[api]\nlisten = 5000\n"),
        "FILE:2: `listen` is 5000, but must be an address and port such as \"127.0.0.1:5000\" or \"[::]:5000\""
    );
    assert_eq!(
        error("[api]\nmax_page_size = -1\n"),
        "FILE:2: `max_page_size` is -1, but must be a whole number from 0 to 4294967295"
    );
    assert_eq!(error("api = 1\n"), "FILE:1: `api` is 1, but must be a table");
    assert_eq!(error("data_dir = [1]\n"), "FILE:1: `data_dir` is a list, but must be a path");
    assert_eq!(
        error("[upstream]\nname = \"a\"\n"),
        "FILE:1: `upstream` is a table, but must be a list of tables: each begins with [[upstream]]"
    );
    assert_eq!(upstream("offline = \"yes\""), "FILE:4: `offline` is \"yes\", but must be true or false");
    assert_eq!(
        upstream("hosts = \"a\""),
        "FILE:4: `hosts` is \"a\", but must be a list such as [\"a\", \"b\"]"
    );
    assert_eq!(
        namespace("prefetch = \"images\""),
        "FILE:4: `prefetch` is \"images\", but must be one of \"none\", \"image\", \"all\""
    );
    assert_eq!(
        upstream("tag_ttl = \"5 parsecs\""),
        "FILE:4: `tag_ttl` is \"5 parsecs\", but must be a duration such as \"500ms\", \"5s\", \"20m\", \"24h\" or \"7d\""
    );
    assert_eq!(
        error("[content]\nhold_back = 1.5\n"),
        "FILE:2: `hold_back` is a number with a fraction, but must be a number of bytes or a size such as \"64KiB\" or \"8MiB\""
    );
}

#[test]
fn an_invalid_url_is_refused_and_its_password_is_not_repeated() {
    let expected =
        "must be a URL such as \"https://registry.example.com\", without user, password, query or fragment";
    assert_eq!(
        error("[[upstream]]\nname = \"a\"\nurl = \"registry.example.com\"\n"),
        format!("FILE:3: `url` is \"registry.example.com\", but {expected}")
    );
    assert_eq!(
        error("[[upstream]]\nname = \"a\"\nurl = \"https://u:secret@a\"\n"),
        format!("FILE:3: `url` is a URL that is not shown because it may contain a password, but {expected}")
    );
    assert_eq!(
        error("[database]\nurl = \"mysql://u:secret@db\"\n"),
        "FILE:2: `url` is a URL that is not shown because it may contain a password, but must be a URL that begins with sqlite:// or postgres://"
    );
    assert_eq!(
        upstream("proxy = \"socks5://p:1\""),
        "FILE:4: `proxy` is \"socks5://p:1\", but must be a URL that begins with http:// or https://, or \"none\""
    );
}

#[test]
fn a_url_with_the_path_of_the_api_is_refused_with_what_to_write() {
    let without = "the URL of a registry does not contain /v2: write";
    for (url, instead) in [
        ("https://host/v2", "\"https://host\""),
        ("http://host:5000/v2/", "\"http://host:5000\""),
        (
            "https://host/v2/team/project/",
            "\"https://host\", and `upstream_prefix = \"team/project\"` in its namespaces",
        ),
        (
            "https://host/api/docker/remote/v2/library",
            "\"https://host/api/docker/remote\", and `upstream_prefix = \"library\"` in its namespaces",
        ),
    ] {
        let document = format!("[[upstream]]\nname = \"a\"\nurl = \"{url}\"\n");
        assert_eq!(error(&document), format!("FILE:3: `url`: {without} {instead}"));
    }
    let upstream = vec![UpstreamFlag { name: "a".to_owned(), url: "http://a/v2".parse().unwrap() }];
    let error = load_with(Flags { upstream, ..Flags::default() }, &[]).unwrap_err().to_string();
    assert_eq!(error, format!("--upstream: `url`: {without} \"http://a\""));
    let below = "[[upstream]]\nname = \"a\"\nurl = \"https://host/api/docker/v2.1\"\n";
    assert_eq!(Written::new(below).load(&[]).unwrap().upstreams[0].client.url.path(), "/api/docker/v2.1");
}

#[test]
fn invalid_toml_is_refused_with_its_line() {
    let error = error("data_dir = \"a\"\n[api\nlisten = 1\n");
    assert!(error.starts_with("FILE:2: not valid TOML: ") && !error.contains('\n'), "{error}");
    let twice = self::error("data_dir = \"a\"\ndata_dir = \"b\"\n");
    assert!(twice.starts_with("FILE:2: not valid TOML: "), "{twice}");
}

#[test]
fn an_unreadable_file_is_named() {
    let flags = Flags { config: Some(PathBuf::from("/no/such/file.toml")), ..Flags::default() };
    assert_eq!(
        load_with(flags, &[]).unwrap_err().to_string(),
        "/no/such/file.toml: failed to read the configuration file: No such file or directory (os error 2)"
    );
    assert_eq!(
        upstream("username = \"u\"\npassword_file = \"/no/such/password\""),
        "FILE:5: `password_file`: failed to read /no/such/password: No such file or directory (os error 2)"
    );
    assert_eq!(
        error("[content]\nlink_keys = [\n{ id = \"a\", file = \"/no/such/key\" }]\n"),
        "FILE:3: `file`: failed to read /no/such/key: No such file or directory (os error 2)"
    );
}

#[test]
fn a_file_with_invalid_content_is_refused() {
    let ca = "[[upstream]]\nname = \"a\"\nurl = \"https://a\"\nca_file = \"HERE/ca.pem\"\n";
    assert_eq!(
        Written::new(ca).with("ca.pem", "x").error(&[]),
        "FILE:4: `ca_file`: the file HERE/ca.pem contains no certificate in PEM format"
    );
    let key = "[content]\nlink_keys = [{ id = \"a\", file = \"HERE/a.key\" }]\n";
    assert_eq!(
        Written::new(key).with("a.key", "abc").error(&[]),
        "FILE:2: `file`: the file HERE/a.key must contain at least 64 hexadecimal digits, such as the output of `openssl rand -hex 32`"
    );
    let password =
        "[[upstream]]\nname = \"a\"\nurl = \"https://a\"\nusername = \"u\"\npassword_file = \"HERE/p\"\n";
    assert_eq!(
        Written::new(password).with("p", "\n").error(&[]),
        "FILE:5: `password_file`: the file HERE/p is empty"
    );
}

#[test]
fn a_login_is_complete_or_absent() {
    assert_eq!(
        upstream("username = \"u\""),
        "FILE:4: the upstream `a` has a `username`, but neither `password_file` nor `password_env`"
    );
    assert_eq!(
        upstream("username = \"u\"\npassword_env = \"NOT_SET\""),
        "FILE:5: `password_env`: the variable NOT_SET is not set"
    );
    let login = "username = \"u\"\npassword_file = \"HERE/p\"\npassword_env = \"X\"";
    let both = format!("[[upstream]]\nname = \"a\"\nurl = \"https://a\"\n{login}");
    assert_eq!(
        Written::new(&both).with("p", "secret").error(&[]),
        "FILE:6: the upstream `a` has both `password_file` and `password_env`"
    );
    assert_eq!(
        upstream("username = \"u\"\ncredential_helper = \"docker-credential-x\""),
        "FILE:4: the upstream `a` has both `credential_helper` and `username`"
    );
    let unknown = upstream("credential_helper = \"rm\"");
    assert!(unknown.starts_with("FILE:4: `credential_helper`"), "{unknown}");
}

#[test]
fn a_duplicate_is_refused_with_both_locations() {
    assert_eq!(
        namespace("[[namespace]]\nprefix = \"a\"\nupstream = \"quay.io\"\n"),
        "FILE:5: duplicate namespace prefix `a`, first defined at FILE:2"
    );
    assert_eq!(
        upstream("[[upstream]]\nname = \"a\"\nurl = \"https://b.example.com\"\n"),
        "FILE:5: duplicate upstream `a`, first defined at FILE:2"
    );
    assert_eq!(
        upstream("hosts = [\"x\"]\n[[upstream]]\nname = \"b\"\nurl = \"https://b\"\nhosts = [\"x\"]\n"),
        "FILE:8: duplicate host `x`, first defined at FILE:4"
    );
}

#[test]
fn a_namespace_of_an_unknown_upstream_is_refused() {
    assert_eq!(
        error("[[namespace]]\nprefix = \"a\"\nupstream = \"quay.oi\"\n"),
        "FILE:3: the namespace `a` has the unknown upstream `quay.oi`; did you mean `quay.io`?"
    );
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(error("\n[[upstream]]\nname = \"a\"\n"), "FILE:2: the key `url` is missing");
    assert_eq!(error("[[namespace]]\nupstream = \"quay.io\"\n"), "FILE:1: the key `prefix` is missing");
}

#[test]
fn invalid_names_globs_platforms_and_hosts_are_refused() {
    assert_eq!(
        error("[[namespace]]\nprefix = \"A/\"\n"),
        "FILE:2: `prefix` is \"A/\", but must be lower-case letters and digits, separated by '.', '_' or '-', in segments separated by '/'"
    );
    for prefix in ["Hub", "hub/", "/hub", "https://hub", "v2//hub"] {
        let error = namespace(&format!("upstream_prefix = {prefix:?}"));
        let expected = format!("FILE:4: `upstream_prefix` is {prefix:?}, but must be lower-case letters");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(namespace("include = [\"[a\"]").starts_with("FILE:4: `include` is \"[a\", but must be a glob: "));
    assert!(namespace("immutable_tags = [\"{v\"]").starts_with("FILE:4: `immutable_tags` is \"{v\""));
    assert!(
        namespace("platforms = [\"amd64\"]").starts_with("FILE:4: `platforms` is \"amd64\", but must be")
    );
    for host in ["https://a", "A", "a/b", "a:x", ""] {
        let error = upstream(&format!("hosts = [{host:?}]"));
        assert!(error.starts_with(&format!("FILE:4: `hosts` is {host:?}, but must be HOST")), "{error}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    assert_eq!(error("[jobs]\nmax_attempts = -3\n"), "FILE:2: `max_attempts` is -3, but must be more than 0");
    assert_eq!(
        error("[api]\nworkers = 0\n"),
        "FILE:2: `workers` is 0, but must be a whole number more than 0"
    );
    for key in ["hold_back", "read_size", "checkpoint_bytes"] {
        let expected = format!("FILE:2: `{key}` is 0, but must be more than 0");
        assert_eq!(error(&format!("[content]\n{key} = 0\n")), expected);
    }
    assert_eq!(upstream("answer_timeout = \"0\""), "FILE:4: `answer_timeout` is 0, but must be more than 0");
    assert_eq!(
        upstream("max_manifest_bytes = \"5MiB\""),
        "FILE:4: `max_manifest_bytes` is \"5MiB\", but must be 4MiB at most"
    );
    assert_eq!(
        error("[api]\ninternal_listen = \"127.0.0.1:5000\"\n"),
        "FILE:2: `internal_listen` is the same address as `listen`"
    );
    assert!(error("[log]\nfilter = \"a=b=c\"\n").starts_with("FILE:2: `filter`: invalid log filter: "));
}

#[test]
fn an_error_in_a_variable_or_flag_names_it() {
    let env =
        |name: &str, value: &str| load_with(Flags::default(), &[(name, value)]).unwrap_err().to_string();
    assert_eq!(
        env("TIDEGATE_API__LISSEN", "x"),
        "TIDEGATE_API__LISSEN: unknown variable `TIDEGATE_API__LISSEN`; did you mean `TIDEGATE_API__LISTEN`?"
    );
    assert_eq!(
        env("TIDEGATE_API__MAX_PAGE_SIZE", "many"),
        "TIDEGATE_API__MAX_PAGE_SIZE: `max_page_size` is \"many\", but must be a whole number from 0 to 4294967295"
    );
    assert!(env("TIDEGATE_UPSTREAM", "[{").starts_with("TIDEGATE_UPSTREAM: not valid TOML: "));
    assert!(env("TIDEGATE_UPSTREAM", "[{ nam = 1 }]").starts_with("TIDEGATE_UPSTREAM: unknown key `nam`"));
    assert!(env("RUST_LOG", "a=b=c").starts_with("RUST_LOG: `filter`: invalid log filter: "));

    let upstream = vec![UpstreamFlag { name: "A".to_owned(), url: "http://a".parse().unwrap() }];
    let error = load_with(Flags { upstream, ..Flags::default() }, &[]).unwrap_err().to_string();
    assert!(error.starts_with("--upstream: `name` is \"A\", but must be lower-case"), "{error}");
}
