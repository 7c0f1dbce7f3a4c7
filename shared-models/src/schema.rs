//! The tables, one schema for SQLite and PostgreSQL. The migrations create the tables; a test
//! compares this file with both databases.

#![expect(missing_docs, reason = "the row types document the columns")]

diesel::table! {
    /// A repository: what it mirrors, and the name that clients use.
    repositories (id) {
        id -> BigInt,
        key -> Text,
        name -> Text,
        upstream -> Nullable<Text>,
        upstream_name -> Nullable<Text>,
        created_at -> BigInt,
        last_pull_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// The bytes of one manifest, shared by repositories.
    manifests (digest) {
        digest -> Text,
        media_type -> Text,
        artifact_type -> Nullable<Text>,
        subject -> Nullable<Text>,
        config -> Nullable<Text>,
        body -> Binary,
        size -> BigInt,
        created_at -> BigInt,
    }
}

diesel::table! {
    /// A descriptor of a manifest.
    manifest_descriptors (manifest, position) {
        manifest -> Text,
        position -> Integer,
        role -> SmallInt,
        digest -> Text,
        media_type -> Text,
        size -> BigInt,
        os -> Nullable<Text>,
        architecture -> Nullable<Text>,
        variant -> Nullable<Text>,
    }
}

diesel::table! {
    /// A name for a manifest in a repository.
    tags (repository_id, name) {
        repository_id -> BigInt,
        name -> Text,
        manifest -> Text,
        moved_at -> BigInt,
        checked_at -> BigInt,
    }
}

diesel::table! {
    /// The history of a tag.
    tag_moves (id) {
        id -> BigInt,
        repository_id -> BigInt,
        name -> Text,
        from -> Nullable<Text>,
        to -> Nullable<Text>,
        at -> BigInt,
        cause -> SmallInt,
    }
}

diesel::table! {
    /// A repository link: the repository may serve the manifest.
    repository_manifests (repository_id, manifest) {
        repository_id -> BigInt,
        manifest -> Text,
        first_seen_at -> BigInt,
        last_pull_at -> Nullable<BigInt>,
        /// Whether the upstream has confirmed the manifest for this repository.
        confirmed -> Bool,
    }
}

diesel::table! {
    /// A known blob, stored or on-demand.
    blobs (digest) {
        digest -> Text,
        size -> Nullable<BigInt>,
        state -> SmallInt,
        stored_at -> Nullable<BigInt>,
        last_read_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// A source of a blob.
    blob_sources (digest, upstream, upstream_name) {
        digest -> Text,
        upstream -> Text,
        upstream_name -> Text,
        failed_until -> Nullable<BigInt>,
        /// The size that the source states.
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// A repository link: the repository may serve the blob.
    repository_blobs (repository_id, digest) {
        repository_id -> BigInt,
        digest -> Text,
        pending -> Bool,
        touched_at -> BigInt,
        /// Whether the upstream has confirmed the blob for this repository.
        confirmed -> Bool,
    }
}

diesel::table! {
    /// The lease of a running download.
    fills (digest) {
        digest -> Text,
        node_id -> Text,
        lease_until -> BigInt,
        offset -> BigInt,
    }
}

diesel::table! {
    /// A content-app process.
    content_nodes (id) {
        id -> Text,
        public_url -> Text,
        internal_url -> Text,
        heartbeat_at -> BigInt,
        draining -> Bool,
    }
}

diesel::table! {
    /// Background work.
    jobs (id) {
        id -> BigInt,
        kind -> Text,
        key -> Text,
        payload -> Text,
        state -> SmallInt,
        attempts -> Integer,
        run_at -> BigInt,
        worker -> Nullable<Text>,
        lease_until -> Nullable<BigInt>,
        error -> Nullable<Text>,
        created_at -> BigInt,
        rerun -> Bool,
        cancelled -> Bool,
        done -> Nullable<BigInt>,
        total -> Nullable<BigInt>,
        ended_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Upstream state shared between processes.
    upstream_states (name) {
        name -> Text,
        observed_at -> BigInt,
        circuit_open_until -> Nullable<BigInt>,
        retry_at -> Nullable<BigInt>,
        limit -> Nullable<BigInt>,
        remaining -> Nullable<BigInt>,
        reset_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// A push in progress.
    uploads (id) {
        id -> Text,
        repository_id -> BigInt,
        offset -> BigInt,
        hash_state -> Nullable<Binary>,
        touched_at -> BigInt,
    }
}

diesel::table! {
    /// A platform that clients of a namespace have requested.
    namespace_platforms (namespace, platform) {
        namespace -> Text,
        platform -> Text,
        asked_at -> BigInt,
    }
}

diesel::joinable!(manifest_descriptors -> manifests (manifest));
diesel::joinable!(tags -> repositories (repository_id));
diesel::joinable!(repository_manifests -> repositories (repository_id));
diesel::joinable!(repository_blobs -> repositories (repository_id));
diesel::joinable!(tag_moves -> repositories (repository_id));
diesel::joinable!(repository_blobs -> blobs (digest));
diesel::joinable!(blob_sources -> blobs (digest));
diesel::joinable!(uploads -> repositories (repository_id));

diesel::allow_tables_to_appear_in_same_query!(
    blob_sources,
    blobs,
    manifest_descriptors,
    manifests,
    repositories,
    repository_blobs,
    repository_manifests,
    tag_moves,
    tags,
    uploads,
);
