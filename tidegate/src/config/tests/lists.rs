use super::*;

const BUILT_IN: [&str; 7] =
    ["docker.io", "quay.io", "ghcr.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"];

fn with_flags(flags: &[(&str, &str)], config: Option<&Written>) -> Result<Settings, ConfigError> {
    let upstream = flags
        .iter()
        .map(|(name, url)| UpstreamFlag { name: (*name).to_owned(), url: url.parse().unwrap() })
        .collect();
    load_with(Flags { upstream, config: config.map(|written| written.file.clone()), ..Flags::default() }, &[])
}

#[test]
fn the_built_in_upstreams_each_have_a_namespace_and_docker_hub_is_the_root_default() {
    let settings = load_with(Flags::default(), &[]).unwrap();
    let names: Vec<&str> = settings.upstreams.iter().map(|upstream| upstream.client.name.as_str()).collect();
    assert_eq!(names, BUILT_IN);
    let mut expected: Vec<(&str, &str)> = BUILT_IN.iter().map(|name| (*name, *name)).collect();
    expected.insert(1, ("", "docker.io"));
    assert_eq!(namespaces(&settings), expected);
    assert_eq!(hosts(&settings)[0], ("docker.io", upstream_client::DOCKER_HUB_HOSTS.to_vec()));
    assert_eq!(hosts(&settings)[1], ("quay.io", vec!["quay.io"]));
    assert_eq!(settings.upstreams[0].client.realms, ["auth.docker.io"]);
}

#[test]
fn a_flag_adds_an_upstream_and_keeps_the_others() {
    let settings = with_flags(&[("local", "http://127.0.0.1:5050")], None).unwrap();
    assert_eq!(settings.upstreams.len(), BUILT_IN.len() + 1);
    assert_eq!(*hosts(&settings).last().unwrap(), ("local", vec!["127.0.0.1:5050"]));
    assert!(namespaces(&settings).contains(&("local", "local")));
    assert!(namespaces(&settings).contains(&("", "docker.io")));
}

#[test]
fn a_flag_replaces_the_upstream_of_its_name_and_answers_to_its_hosts() {
    let settings = with_flags(&[("docker.io", "http://127.0.0.1:5050")], None).unwrap();
    assert_eq!(settings.upstreams.len(), BUILT_IN.len());
    let expected = vec!["docker.io", "registry-1.docker.io", "index.docker.io", "127.0.0.1:5050"];
    assert_eq!(*hosts(&settings).last().unwrap(), ("docker.io", expected));
    assert!(settings.upstreams.last().unwrap().client.realms.is_empty());
    assert_eq!(namespaces(&settings).iter().filter(|(_, upstream)| *upstream == "docker.io").count(), 2);
}

#[test]
fn two_flags_may_lead_to_one_host() {
    let settings = with_flags(&[("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.1:1")], None).unwrap();
    let hosts = hosts(&settings);
    assert!(hosts.contains(&("a", vec!["127.0.0.1:1"])));
    assert!(hosts.contains(&("b", vec![])));
    let settings = with_flags(&[("a", "http://127.0.0.1:1"), ("a", "http://127.0.0.1:2")], None).unwrap();
    assert_eq!(settings.upstreams.last().unwrap().client.url.port(), Some(2));
}

#[test]
fn upstreams_in_the_file_replace_the_built_in_ones_and_get_namespaces() {
    let written = Written::new(
        r#"
        [[upstream]]
        name = "quay.io"
        url = "https://mirror.example.com:8443"
        [[upstream]]
        name = "team"
        url = "https://registry.example.com"
        hosts = ["registry.example.com", "r.example.com"]
        [[namespace]]
        prefix = "ours"
        upstream = "team"
        [[namespace]]
        prefix = "own"
        "#,
    );
    let settings = with_flags(&[("local", "http://127.0.0.1:1")], Some(&written)).unwrap();
    assert_eq!(
        hosts(&settings),
        [
            ("quay.io", vec!["mirror.example.com:8443", "quay.io"]),
            ("team", vec!["registry.example.com", "r.example.com"]),
            ("local", vec!["127.0.0.1:1"]),
        ]
    );
    assert_eq!(
        namespaces(&settings),
        [("ours", "team"), ("own", "none"), ("local", "local"), ("quay.io", "quay.io")]
    );
}

#[test]
fn namespaces_alone_keep_only_the_built_in_upstreams_that_they_name() {
    let written = Written::new(
        "[[namespace]]\nprefix = \"hub\"\nupstream = \"docker.io\"\ninclude = [\"library/*\"]\n",
    );
    let settings = with_flags(&[("local", "http://127.0.0.1:1")], Some(&written)).unwrap();
    assert_eq!(namespaces(&settings), [("hub", "docker.io"), ("local", "local")]);
    assert_eq!(settings.upstreams.len(), 2);
}

#[test]
fn an_empty_list_configures_nothing() {
    let settings = Written::new("upstream = []").load(&[]).unwrap();
    assert!(settings.upstreams.is_empty() && settings.namespaces.is_empty());
}

#[test]
fn a_list_in_a_variable_replaces_that_of_the_file() {
    let written = Written::new("[[upstream]]\nname = \"a\"\nurl = \"https://a.example.com\"\n");
    let env = [("TIDEGATE_UPSTREAM", r#"[{ name = "b", url = "https://b.example.com" }]"#)];
    assert_eq!(namespaces(&written.load(&env).unwrap()), [("b", "b")]);
}

#[test]
fn an_upstream_with_an_upstream_prefix_does_not_get_the_host_of_its_url() {
    let document = |upstream: &str| {
        format!(
            "[[upstream]]\nname = \"{upstream}\"\nurl = \"https://harbor.example.com\"\n
             [[namespace]]\nprefix = \"\"\nupstream = \"{upstream}\"\nupstream_prefix = \"hub\"\n"
        )
    };
    let settings = Written::new(&document("harbor")).load(&[]).unwrap();
    assert_eq!(hosts(&settings), [("harbor", vec![])]);
    assert_eq!(settings.namespaces[0].upstream_prefix, "hub");
    let settings = Written::new(&document("docker.io")).load(&[]).unwrap();
    assert_eq!(hosts(&settings), [("docker.io", vec!["docker.io"])]);
}
