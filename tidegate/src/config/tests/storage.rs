//! The section `[storage]`.

use secrecy::ExposeSecret as _;

use blob_store::Addressing;

use super::*;

/// A section that begins with a bucket, and goes on with these keys at line 4.
fn s3(keys: &str) -> Written {
    Written::new(&format!("[storage]\nkind = \"s3\"\nbucket = \"layers\"\n{keys}"))
}

fn error(keys: &str) -> String {
    s3(keys).error(&[])
}

const BOTH_KEYS: &str = "access_key_file = \"HERE/access\"\nsecret_key_file = \"HERE/secret\"\n";

#[test]
fn a_bucket_alone_is_enough() {
    let storage = s3("").load(&[]).unwrap().storage;
    assert_eq!((storage.tier.kind, storage.s3.bucket.as_str()), (StorageKind::S3, "layers"));
    assert_eq!((storage.s3.addressing, storage.tier.redirect), (Addressing::Path, true));
    assert_eq!(storage.s3.part_size, 16 << 20);
    assert!(storage.s3.keys.is_none() && storage.s3.ca_pem.is_none() && storage.tier.cache_size.is_none());
}

#[test]
fn keys_and_certificates_are_read_and_not_shown() {
    let keys = format!("{BOTH_KEYS}ca_file = \"HERE/ca.pem\"\n");
    let written = s3(&keys).with("access", "AKIA-known\n").with("secret", "hush\n");
    let settings = written.with("ca.pem", "-----BEGIN CERTIFICATE-----\n").load(&[]).unwrap();
    let keys = settings.storage.s3.keys.as_ref().unwrap();
    assert_eq!(keys.access_key.expose_secret(), "AKIA-known");
    assert_eq!(keys.secret_key.expose_secret(), "hush");
    assert!(settings.storage.s3.ca_pem.is_some());
    for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
        assert!(!shown.contains("hush") && !shown.contains("AKIA-known"), "{shown}");
    }
}

#[test]
fn the_shown_section_can_be_read_again() {
    for settings in [s3("cache_size = \"1GiB\"").load(&[]).unwrap(), Written::new("").load(&[]).unwrap()] {
        let shown = settings.to_toml().unwrap();
        assert_eq!(Written::new(&shown).load(&[]).unwrap().to_toml().unwrap(), shown);
    }
}

#[test]
fn a_bucket_is_required_and_only_accepted_for_its_kind() {
    let alone = |section: &str| Written::new(&format!("[storage]\n{section}")).error(&[]);
    assert_eq!(alone("kind = \"s3\"\n"), "FILE:2: the key `bucket` is missing");
    assert_eq!(alone("bucket = \"a\"\n"), "FILE:2: `bucket` is only used with `kind = \"s3\"`");
    assert_eq!(
        alone("kind = \"local\"\ncache_size = \"1GiB\"\n"),
        "FILE:3: `cache_size` is only used with `kind = \"s3\"`"
    );
    assert_eq!(
        alone("kind = \"s3\"\nbucket = \"\"\n"),
        "FILE:3: `bucket` is \"\", but must be the name of a bucket"
    );
    let env = Written::new("").load(&[("TIDEGATE_STORAGE__KIND", "s3")]).unwrap_err().to_string();
    assert_eq!(env, "TIDEGATE_STORAGE__KIND: the key `bucket` is missing");
}

#[test]
fn the_key_files_need_each_other() {
    assert_eq!(
        s3("access_key_file = \"HERE/x\"").with("x", "AKIA").error(&[]),
        "FILE:4: `access_key_file` needs `secret_key_file`"
    );
    assert_eq!(
        s3("secret_key_file = \"HERE/x\"").with("x", "secret").error(&[]),
        "FILE:4: `secret_key_file` needs `access_key_file`"
    );
    assert_eq!(
        s3(BOTH_KEYS).with("access", "AKIA").with("secret", "").error(&[]),
        "FILE:5: `secret_key_file`: the file HERE/secret is empty"
    );
}

#[test]
fn invalid_values_are_refused() {
    assert_eq!(error("part_size = \"4MiB\""), "FILE:4: `part_size` is \"4MiB\", but must be 5MiB at least");
    assert_eq!(error("answer_timeout = \"0\""), "FILE:4: `answer_timeout` is 0, but must be more than 0");
    assert!(
        error("endpoint = \"ftp://a\"").starts_with("FILE:4: `endpoint` is \"ftp://a\", but must be a URL")
    );
    assert!(
        error("public_endpoint = \"https://u:hush@a\"")
            .starts_with("FILE:4: `public_endpoint` is a URL that")
    );
    assert_eq!(
        error("addressing = \"dns\""),
        "FILE:4: `addressing` is \"dns\", but must be one of \"path\", \"virtual-host\""
    );
    assert_eq!(
        error("addressing = \"virtual-host\"\nendpoint = \"http://127.0.0.1:9000\""),
        "FILE:5: `endpoint` is an IP address: it needs `addressing = \"path\"`"
    );
    for prefix in ["a//b", "a/../b", "a b", "a?"] {
        let error = error(&format!("prefix = {prefix:?}"));
        assert!(
            error.starts_with(&format!("FILE:4: `prefix` is {prefix:?}, but must be letters")),
            "{error}"
        );
    }
    assert!(s3("prefix = \"/a/b-1.c/\"").load(&[]).is_ok());
}
