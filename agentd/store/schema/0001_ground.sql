-- What every agentd database has, whatever else it holds. Times are Unix seconds.

-- Applied migrations; a row is written in the transaction that ran the file.
CREATE TABLE migrations (
    number     INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;

-- The audit log (written by store/audit.py). `data` is canonical JSON; `hash` covers all other columns, `prev` is the
-- hash of the record before, so that each record vouches for all earlier ones.
CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY,
    at   REAL NOT NULL,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    data TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_task ON audit (task, seq) WHERE task <> '';

-- The last record, kept apart: without it a cut tail would leave a chain that looks whole.
CREATE TABLE audit_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_head VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TRIGGER audit_in_order BEFORE INSERT ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_head WHERE seq = NEW.seq - 1 AND hash = NEW.prev)
BEGIN SELECT RAISE(ABORT, 'an audit record must follow the last one'); END;

CREATE TRIGGER audit_moves_head AFTER INSERT ON audit
BEGIN UPDATE audit_head SET seq = NEW.seq, hash = NEW.hash; END;

CREATE TRIGGER audit_keeps_records BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit records cannot be removed'); END;

CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit records cannot be changed'); END;

CREATE TRIGGER audit_head_is_one BEFORE INSERT ON audit_head
BEGIN SELECT RAISE(ABORT, 'the audit log has one head'); END;

CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'the head of the audit log cannot be removed'); END;

CREATE TRIGGER audit_head_grows BEFORE UPDATE ON audit_head
WHEN NEW.seq <> OLD.seq + 1 OR NOT EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'the head of the audit log follows its records'); END;

-- What listeners were told (written by store/eventlog.py), so that one who was away can catch up.
CREATE TABLE events (
    id   INTEGER PRIMARY KEY,
    at   REAL NOT NULL,
    kind TEXT NOT NULL,
    task TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_task ON events (task, id);

-- Whole outputs of which a model saw only a part (written by store/outputs.py).
CREATE TABLE outputs (
    id   INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    at   REAL NOT NULL,
    text TEXT NOT NULL
) STRICT;
