DROP INDEX jobs_ended;
DROP INDEX jobs_worker;
DROP INDEX jobs_lease;
DROP INDEX jobs_due;
DROP INDEX jobs_key;
DROP INDEX jobs_live;
DELETE FROM jobs WHERE state > 2;
ALTER TABLE jobs DROP COLUMN ended_at;
ALTER TABLE jobs DROP COLUMN total;
ALTER TABLE jobs DROP COLUMN done;
ALTER TABLE jobs DROP COLUMN cancelled;
ALTER TABLE jobs DROP COLUMN rerun;
ALTER TABLE jobs RENAME TO tasks;
CREATE UNIQUE INDEX tasks_live ON tasks (kind, "key") WHERE state <> 2;
CREATE INDEX tasks_key ON tasks (kind, "key");
CREATE INDEX tasks_due ON tasks (state, run_at, id);
CREATE INDEX tasks_lease ON tasks (state, lease_until);

ALTER TABLE blob_sources DROP COLUMN size;

ALTER TABLE manifest_descriptors RENAME COLUMN role TO kind;
ALTER TABLE manifest_descriptors RENAME TO manifest_items;
ALTER INDEX manifest_descriptors_digest RENAME TO manifest_items_digest;
ALTER INDEX manifest_descriptors_pkey RENAME TO manifest_items_pkey;

-- Of several repositories that clients call by one name, one remains.
DELETE FROM repositories WHERE id NOT IN (SELECT min(id) FROM repositories GROUP BY name);
DROP INDEX repositories_name;
ALTER TABLE repositories DROP COLUMN "key";
ALTER TABLE repositories ADD UNIQUE (name);
