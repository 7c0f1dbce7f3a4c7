-- A repository is identified by its upstream and its name there; the name that clients use may be shared by several.
CREATE TEMPORARY TABLE merged AS
SELECT id, into_id FROM (
    SELECT id, min(id) OVER (PARTITION BY upstream, coalesce(upstream_name, name)) AS into_id FROM repositories
) AS grouped
WHERE id <> into_id;

INSERT INTO repository_manifests (repository_id, manifest, first_seen_at, last_pull_at, confirmed)
SELECT into_id, manifest, min(first_seen_at), max(last_pull_at), bool_or(confirmed)
FROM repository_manifests JOIN merged ON merged.id = repository_id
WHERE TRUE
GROUP BY into_id, manifest
ON CONFLICT (repository_id, manifest) DO UPDATE
SET confirmed = repository_manifests.confirmed OR excluded.confirmed;

INSERT INTO repository_blobs (repository_id, digest, pending, touched_at, confirmed)
SELECT into_id, digest, bool_and(pending), max(touched_at), bool_or(confirmed)
FROM repository_blobs JOIN merged ON merged.id = repository_id
WHERE TRUE
GROUP BY into_id, digest
ON CONFLICT (repository_id, digest) DO UPDATE
SET pending = repository_blobs.pending AND excluded.pending,
    confirmed = repository_blobs.confirmed OR excluded.confirmed;

INSERT INTO tags (repository_id, name, manifest, moved_at, checked_at)
SELECT into_id, name, manifest, moved_at, checked_at
FROM (
    SELECT into_id, name, manifest, moved_at, checked_at,
        row_number() OVER (PARTITION BY into_id, name ORDER BY checked_at DESC) AS place
    FROM tags JOIN merged ON merged.id = repository_id
) AS ranked
WHERE place = 1
ON CONFLICT (repository_id, name) DO UPDATE
SET manifest = excluded.manifest, moved_at = excluded.moved_at, checked_at = excluded.checked_at
WHERE excluded.checked_at > tags.checked_at;

UPDATE tag_moves SET repository_id = (SELECT into_id FROM merged WHERE merged.id = repository_id)
WHERE repository_id IN (SELECT id FROM merged);
UPDATE uploads SET repository_id = (SELECT into_id FROM merged WHERE merged.id = repository_id)
WHERE repository_id IN (SELECT id FROM merged);
DELETE FROM tags WHERE repository_id IN (SELECT id FROM merged);
DELETE FROM repository_manifests WHERE repository_id IN (SELECT id FROM merged);
DELETE FROM repository_blobs WHERE repository_id IN (SELECT id FROM merged);
DELETE FROM repositories WHERE id IN (SELECT id FROM merged);
DROP TABLE merged;

ALTER TABLE repositories ADD COLUMN "key" TEXT COLLATE "C";
UPDATE repositories SET "key" = CASE WHEN upstream IS NULL THEN '@' || name ELSE upstream || '@' || coalesce(upstream_name, name) END;
ALTER TABLE repositories ALTER COLUMN "key" SET NOT NULL;
ALTER TABLE repositories ADD UNIQUE ("key");
ALTER TABLE repositories DROP CONSTRAINT repositories_name_key;
CREATE INDEX repositories_name ON repositories (name);

ALTER TABLE manifest_items RENAME TO manifest_descriptors;
ALTER TABLE manifest_descriptors RENAME COLUMN kind TO role;
ALTER INDEX manifest_items_digest RENAME TO manifest_descriptors_digest;
ALTER INDEX manifest_items_pkey RENAME TO manifest_descriptors_pkey;

-- A size that was stated belongs to the source that stated it; the size of a blob is that of the received bytes.
ALTER TABLE blob_sources ADD COLUMN size BIGINT;
UPDATE blob_sources SET size = (
    SELECT size FROM blobs WHERE blobs.digest = blob_sources.digest AND state = 0 AND size >= 0
);
UPDATE blobs SET size = NULL WHERE state = 0;

DROP INDEX tasks_live;
DROP INDEX tasks_key;
DROP INDEX tasks_due;
DROP INDEX tasks_lease;
ALTER TABLE tasks RENAME TO jobs;
-- Whether the job was requested again while it ran.
ALTER TABLE jobs ADD COLUMN rerun BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE jobs ADD COLUMN cancelled BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE jobs ADD COLUMN done BIGINT;
ALTER TABLE jobs ADD COLUMN total BIGINT;
ALTER TABLE jobs ADD COLUMN ended_at BIGINT;
UPDATE jobs SET ended_at = run_at WHERE state = 2;
-- 0 is queued and 1 running; the others have ended and do not prevent a new job.
CREATE UNIQUE INDEX jobs_live ON jobs (kind, "key") WHERE state < 2;
CREATE INDEX jobs_key ON jobs (kind, "key");
CREATE INDEX jobs_due ON jobs (kind, state, run_at, id);
CREATE INDEX jobs_lease ON jobs (kind, state, lease_until);
CREATE INDEX jobs_worker ON jobs (worker) WHERE worker IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
