-- The queue (written by tasks/queue.py). `number` is the order of arrival; `fence` grows with each claim, so what a
-- worker writes can be refused once another one has claimed the task. Times are Unix seconds.
CREATE TABLE tasks (
    number           INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    state            TEXT NOT NULL CHECK (state IN (
                         'queued', 'running', 'waiting', 'verified', 'claimed', 'failed', 'looped', 'budget',
                         'denied', 'impossible', 'cancelled', 'rolled_back')),
    goal             TEXT NOT NULL,
    workspace        TEXT NOT NULL,
    level            INTEGER NOT NULL,
    checks           TEXT NOT NULL,
    budget           TEXT NOT NULL,
    origin           TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    not_before       REAL,
    deadline         REAL,
    idempotency_key  TEXT UNIQUE,
    request_hash     TEXT NOT NULL,
    retry_of         TEXT REFERENCES tasks (id),
    created          REAL NOT NULL,
    started          REAL,
    ended            REAL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    fence            INTEGER NOT NULL DEFAULT 0,
    worker           TEXT NOT NULL DEFAULT '',
    lease_until      REAL,
    lease_overdue    INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    question         TEXT NOT NULL DEFAULT '',
    report           TEXT
) STRICT;
CREATE INDEX tasks_in_turn ON tasks (state, priority DESC, number);
CREATE INDEX tasks_ended ON tasks (ended) WHERE ended IS NOT NULL;
CREATE INDEX tasks_retry_of ON tasks (retry_of) WHERE retry_of IS NOT NULL;

CREATE TABLE task_after (
    task     TEXT NOT NULL REFERENCES tasks (id),
    position INTEGER NOT NULL,
    needs    TEXT NOT NULL REFERENCES tasks (id),
    PRIMARY KEY (task, position)
) STRICT, WITHOUT ROWID;

-- What a task has done (written by tasks/journal.py): an intent before an effect, its result after.
CREATE TABLE journal (
    task   TEXT NOT NULL REFERENCES tasks (id),
    key    TEXT NOT NULL,
    effect TEXT NOT NULL CHECK (effect IN ('pure', 'idempotent', 'probeable', 'unsafe')),
    state  TEXT NOT NULL CHECK (state IN ('intent', 'done')),
    begun  INTEGER NOT NULL DEFAULT 1,
    before TEXT,
    result TEXT,
    at     REAL NOT NULL,
    PRIMARY KEY (task, key)
) STRICT;

CREATE TABLE plans (
    task TEXT PRIMARY KEY REFERENCES tasks (id),
    plan TEXT NOT NULL,
    at   REAL NOT NULL
) STRICT;

CREATE TABLE steps (
    task    TEXT NOT NULL REFERENCES plans (task),
    number  INTEGER NOT NULL,
    state   TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed')),
    outcome TEXT,
    started REAL,
    ended   REAL,
    PRIMARY KEY (task, number)
) STRICT, WITHOUT ROWID;
