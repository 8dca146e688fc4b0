-- How a task works: on the workspace itself, or on a copy of which nothing is taken over. `applies`: the task of the second
-- kind whose changes this one makes (written by tasks/queue.py).
ALTER TABLE tasks ADD COLUMN mode TEXT NOT NULL DEFAULT 'real';
ALTER TABLE tasks ADD COLUMN applies TEXT REFERENCES tasks (id);

-- What a task would change (written by workspace/previews.py): a row for each task, and one for each of its files. `after` is
-- compressed; digests are SHA-256; a link's content is what it names.
CREATE TABLE previews (
    task TEXT PRIMARY KEY REFERENCES tasks (id),
    at   REAL NOT NULL
) STRICT;
CREATE TABLE preview_files (
    task        TEXT NOT NULL REFERENCES previews (task),
    path        BLOB NOT NULL,
    before      BLOB,
    before_mode INTEGER NOT NULL,
    before_link INTEGER NOT NULL,
    after       BLOB,
    after_mode  INTEGER NOT NULL,
    after_link  INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    diff        TEXT NOT NULL,
    added       INTEGER NOT NULL,
    removed     INTEGER NOT NULL,
    PRIMARY KEY (task, path)
) STRICT, WITHOUT ROWID;
