-- What waits, or has waited, for a person (written by policy/approvals.py): a call of a tool, a plan, or a question. `key`
-- is the place in the task's journal, `digest` the hash of exactly what was shown. Times are Unix seconds.
CREATE TABLE approvals (
    id       INTEGER PRIMARY KEY,
    task     TEXT NOT NULL REFERENCES tasks (id),
    key      TEXT NOT NULL,
    step     INTEGER,
    kind     TEXT NOT NULL CHECK (kind IN ('call', 'plan', 'question')),
    state    TEXT NOT NULL CHECK (state IN ('open', 'approved', 'rejected', 'expired', 'used')),
    digest   TEXT NOT NULL,
    tool     TEXT NOT NULL,
    actions  TEXT NOT NULL,
    shown    TEXT NOT NULL,
    hunks    INTEGER NOT NULL,
    rule     TEXT NOT NULL,
    because  TEXT NOT NULL,
    risk     INTEGER NOT NULL,
    asked    REAL NOT NULL,
    expires  REAL NOT NULL,
    answered REAL,
    answerer TEXT NOT NULL DEFAULT '',
    words    TEXT NOT NULL DEFAULT '',
    chosen   TEXT
) STRICT;
CREATE INDEX approvals_of ON approvals (task, key);
CREATE UNIQUE INDEX approvals_open ON approvals (task) WHERE state = 'open';
