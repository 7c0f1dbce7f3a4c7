-- Tables of small rows that are looked up by their key are WITHOUT ROWID: one tree to search and to keep, not two.

CREATE TABLE repositories (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    upstream TEXT,
    upstream_name TEXT,
    created_at BIGINT NOT NULL,
    last_pull_at BIGINT
);

CREATE TABLE manifests (
    digest TEXT PRIMARY KEY NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    config TEXT,
    body BLOB NOT NULL,
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX manifests_subject ON manifests (subject) WHERE subject IS NOT NULL;

CREATE TABLE manifest_items (
    manifest TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    kind SMALLINT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    os TEXT,
    architecture TEXT,
    variant TEXT,
    PRIMARY KEY (manifest, position)
) WITHOUT ROWID;
CREATE INDEX manifest_items_digest ON manifest_items (digest);

CREATE TABLE tags (
    repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    manifest TEXT NOT NULL REFERENCES manifests (digest),
    moved_at BIGINT NOT NULL,
    checked_at BIGINT NOT NULL,
    PRIMARY KEY (repository_id, name)
) WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags (manifest);

CREATE TABLE tag_moves (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    "from" TEXT,
    "to" TEXT,
    at BIGINT NOT NULL,
    cause SMALLINT NOT NULL
);
CREATE INDEX tag_moves_tag ON tag_moves (repository_id, name, id);

CREATE TABLE repository_manifests (
    repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    manifest TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    last_pull_at BIGINT,
    PRIMARY KEY (repository_id, manifest)
) WITHOUT ROWID;
CREATE INDEX repository_manifests_manifest ON repository_manifests (manifest);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY NOT NULL,
    size BIGINT,
    state SMALLINT NOT NULL,
    stored_at BIGINT,
    last_read_at BIGINT
) WITHOUT ROWID;
CREATE INDEX blobs_eviction ON blobs (state, last_read_at);

CREATE TABLE blob_sources (
    digest TEXT NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
    upstream TEXT NOT NULL,
    upstream_name TEXT NOT NULL,
    failed_until BIGINT,
    PRIMARY KEY (digest, upstream, upstream_name)
) WITHOUT ROWID;

CREATE TABLE repository_blobs (
    repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    pending BOOLEAN NOT NULL,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (repository_id, digest)
) WITHOUT ROWID;
CREATE INDEX repository_blobs_digest ON repository_blobs (digest);
-- Few links are pending, but a blob that everybody has is in many repositories.
CREATE INDEX repository_blobs_pending ON repository_blobs (touched_at) WHERE pending;
CREATE INDEX repository_blobs_pending_digest ON repository_blobs (digest) WHERE pending;

CREATE TABLE fills (
    digest TEXT PRIMARY KEY NOT NULL,
    node_id TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    "offset" BIGINT NOT NULL
);

CREATE TABLE content_nodes (
    id TEXT PRIMARY KEY NOT NULL,
    public_url TEXT NOT NULL,
    internal_url TEXT NOT NULL,
    heartbeat_at BIGINT NOT NULL,
    draining BOOLEAN NOT NULL
);

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    kind TEXT NOT NULL,
    "key" TEXT NOT NULL,
    payload TEXT NOT NULL,
    state SMALLINT NOT NULL,
    attempts INTEGER NOT NULL,
    run_at BIGINT NOT NULL,
    worker TEXT,
    lease_until BIGINT,
    error TEXT,
    created_at BIGINT NOT NULL
);
-- 2 is failed: a row that is kept to be looked at and doesn't stand in the way of a new one.
CREATE UNIQUE INDEX tasks_live ON tasks (kind, "key") WHERE state <> 2;
CREATE INDEX tasks_key ON tasks (kind, "key");
CREATE INDEX tasks_due ON tasks (state, run_at, id);
CREATE INDEX tasks_lease ON tasks (state, lease_until);

CREATE TABLE upstream_states (
    name TEXT PRIMARY KEY NOT NULL,
    observed_at BIGINT NOT NULL,
    circuit_open_until BIGINT,
    retry_at BIGINT,
    "limit" BIGINT,
    remaining BIGINT,
    reset_at BIGINT
);

CREATE TABLE uploads (
    id TEXT PRIMARY KEY NOT NULL,
    repository_id BIGINT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    "offset" BIGINT NOT NULL,
    hash_state BLOB,
    touched_at BIGINT NOT NULL
);
CREATE INDEX uploads_repository ON uploads (repository_id);
CREATE INDEX uploads_touched ON uploads (touched_at);

CREATE TABLE namespace_platforms (
    namespace TEXT NOT NULL,
    platform TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, platform)
);
