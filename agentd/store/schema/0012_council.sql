-- Whether the council is to sit whatever the risk (written by tasks/queue.py), and what it said (written by tasks/journal.py).
ALTER TABLE tasks ADD COLUMN council INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdicts (
    id      INTEGER PRIMARY KEY,
    task    TEXT NOT NULL REFERENCES tasks (id),
    key     TEXT NOT NULL,
    verdict TEXT NOT NULL,
    at      REAL NOT NULL,
    UNIQUE (task, key)
) STRICT;
