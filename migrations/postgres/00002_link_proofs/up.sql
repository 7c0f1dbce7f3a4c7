-- Whether the upstream has confirmed the content for this repository; otherwise a manifest of the repository names it.
ALTER TABLE repository_manifests ADD COLUMN confirmed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE repository_blobs ADD COLUMN confirmed BOOLEAN NOT NULL DEFAULT FALSE;
-- Links of the previous version did not tell claims from confirmations; manifests stay readable.
UPDATE repository_manifests SET confirmed = TRUE;
UPDATE repository_blobs SET confirmed = TRUE WHERE pending;
