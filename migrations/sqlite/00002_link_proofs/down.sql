ALTER TABLE repository_blobs DROP COLUMN confirmed;
ALTER TABLE repository_manifests DROP COLUMN confirmed;
