use clap::CommandFactory as _;

use super::*;

fn parse(arguments: &[&str]) -> Cli {
    Cli::try_parse_from([&["tidegate"], arguments].concat()).unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    Cli::try_parse_from([&["tidegate"], arguments].concat()).unwrap_err().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_subcommand_it_serves() {
    assert_eq!(parse(&[]).mode(), Mode::Serve);
    for (word, mode) in [
        ("serve", Mode::Serve),
        ("registry-api", Mode::RegistryApi),
        ("content-app", Mode::ContentApp),
        ("migrate", Mode::Migrate),
        ("check-config", Mode::CheckConfig),
        ("health", Mode::Health),
    ] {
        assert_eq!(parse(&[word]).mode(), mode);
    }
}

#[test]
fn flags_are_accepted_before_and_after_the_subcommand() {
    let flags = ["--listen", "127.0.0.1:0", "--data-dir", "d", "--log", "json", "--config", "c"];
    let all = [vec!["serve"], flags.to_vec()].concat();
    let before = [flags.to_vec(), vec!["serve"]].concat();
    for arguments in [flags.to_vec(), all, before] {
        let flags = parse(&arguments).flags();
        assert_eq!(flags.listen.unwrap().port(), 0);
        assert_eq!(flags.data_dir.as_deref(), Some("d"));
        assert_eq!(flags.config.unwrap().to_str(), Some("c"));
        assert_eq!(flags.log, Some(LogFormat::Json));
    }
    let both = parse(&["--listen", "127.0.0.1:1", "serve", "--listen", "127.0.0.1:2"]).flags();
    assert_eq!(both.listen.unwrap().port(), 2);
}

#[test]
fn upstreams_accumulate() {
    let flags =
        parse(&["--upstream", "a=http://a", "serve", "--upstream", "b=http://b:1", "--upstream=c=http://c"])
            .flags();
    let names: Vec<&str> = flags.upstream.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(flags.upstream[1].url.as_str(), "http://b:1/");
}

#[test]
fn health_accepts_a_url() {
    assert_eq!(parse(&["health"]).health_url(), None);
    let with_url = parse(&["health", "--url", "http://node:5101/readyz"]);
    assert_eq!(with_url.health_url().unwrap().as_str(), "http://node:5101/readyz");
    let flags = parse(&["health", "--internal-listen", "127.0.0.1:5101"]).flags();
    assert_eq!(flags.internal_listen.unwrap().port(), 5101);
}

#[test]
fn invalid_arguments_are_refused() {
    assert!(refusal(&["health", "--url", "node:5101"]).contains("expected an http or https URL"));
    assert!(refusal(&["--upstream", "http://a"]).contains("expected NAME=URL"));
    assert!(refusal(&["--upstream", "=http://a"]).contains("the name before '=' is missing"));
    for url in ["a", "ftp://a", "http://u:p@a", "http://a?b", "http://"] {
        assert!(
            refusal(&["--upstream", &format!("a={url}")]).contains("expected an http or https URL"),
            "{url}"
        );
    }
    assert!(refusal(&["--listen", "localhost"]).contains("--listen"));
    assert!(refusal(&["--log", "xml"]).contains("[possible values: text, json]"));
    assert!(refusal(&["srve"]).contains("serve"));
}

#[test]
fn the_help_is_unchanged() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    let _guard = settings.bind_to_scope();
    insta::assert_snapshot!("help", refusal(&["--help"]));
    insta::assert_snapshot!("help-short", refusal(&["-h"]));
    for command in ["serve", "registry-api", "content-app", "migrate", "check-config", "health"] {
        insta::assert_snapshot!(format!("help-{command}"), refusal(&[command, "--help"]));
    }
}
