use super::*;

#[test]
fn paths_of_blobs_and_partial_files_are_those_of_the_tree() {
    let layout = Layout::new(Path::new("/d"));
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, b"x");
        let (name, hex) = (algorithm.as_str(), digest.hex());
        let blob = layout.blob(&digest);
        assert_eq!(blob, PathBuf::from(format!("/d/blobs/{name}/{}/{hex}", hex.get(..2).unwrap())));
        assert_eq!(Shard::of(&digest).digest(hex), Some(digest.clone()));
        assert_eq!(layout.partial(&(&digest).into()), PathBuf::from(format!("/d/partial/{name}-{hex}")));
    }
}

#[test]
fn names_that_do_not_belong_to_the_shard_are_ignored() {
    let digest = Digest::sha256(b"x");
    let other = Shard::all().find(|shard| *shard != Shard::of(&digest)).unwrap();
    assert_eq!(other.digest(digest.hex()), None);
    assert_eq!(Shard::of(&digest).digest(".probe"), None);
}

#[test]
fn a_key_is_the_path_of_the_blob_below_the_prefix_and_is_parsed_back() {
    let digest = Digest::sha256(b"x");
    let hex = digest.hex();
    let below = format!("blobs/sha256/{}/{hex}", hex.get(..2).unwrap());
    for (prefix, key) in [("", below.clone()), ("a/b", format!("a/b/{below}"))] {
        assert_eq!(object_key(prefix, &digest), key);
        assert_eq!(object_digest(prefix, &key), Some(digest.clone()));
        assert_eq!(object_digest("other", &key), None);
        assert_eq!(object_digest(prefix, &format!("{key}/x")), None);
    }
    assert_eq!(object_digest("", &format!("blobs/sha256/zz/{hex}")), None);
}

#[test]
fn shards_are_unique_and_in_order() {
    let shards: Vec<Shard> = Shard::all().collect();
    assert_eq!(shards.len(), 512);
    assert!(shards.is_sorted_by(|left, right| left < right));
}
