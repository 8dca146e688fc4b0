-- Plugins and how they have done (written by plugins/registry.py); what they consist of lies in the home's folder, and
-- `digest` is the SHA-256 of the manifest there. Times are Unix seconds.
CREATE TABLE plugins (
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL CHECK (version >= 1),
    state      TEXT NOT NULL CHECK (state IN ('provisional', 'trusted', 'demoted', 'quarantined', 'archived')),
    reason     TEXT NOT NULL,
    digest     TEXT NOT NULL,
    spec       TEXT NOT NULL,
    evidence   TEXT NOT NULL,
    proven_on  TEXT NOT NULL,                 -- the language that its last proof was given in
    successes  INTEGER NOT NULL DEFAULT 0,    -- of the calls that its state rests on
    failures   INTEGER NOT NULL DEFAULT 0,
    failed_now INTEGER NOT NULL DEFAULT 0,    -- failures since the last success
    created    REAL NOT NULL,
    used       REAL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- All calls, by the model that made them; empty for a person's.
CREATE TABLE plugin_uses (
    name      TEXT NOT NULL,
    version   INTEGER NOT NULL,
    model     TEXT NOT NULL,
    successes INTEGER NOT NULL DEFAULT 0,
    failures  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, version, model),
    FOREIGN KEY (name, version) REFERENCES plugins (name, version) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The version that a person went back to.
CREATE TABLE plugin_pins (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    FOREIGN KEY (name, version) REFERENCES plugins (name, version) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
