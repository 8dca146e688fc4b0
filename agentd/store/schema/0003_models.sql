-- Replies of models, by the exact request (written by backends/cache.py). Times are Unix seconds.
CREATE TABLE replies (
    key     TEXT PRIMARY KEY,
    model   TEXT NOT NULL,
    reply   TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    created REAL NOT NULL,
    used    REAL NOT NULL,
    hits    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX replies_used ON replies (used);

-- What a probe found out about a model (written by backends/profiles.py). `fingerprint` tells its file, or the server and
-- the model's name there, so that another file under the same name is probed anew.
CREATE TABLE model_profiles (
    model       TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    probed      REAL NOT NULL,
    profile     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys and passwords, sealed with the key in the home's state folder (written by security/vault.py).
CREATE TABLE secrets (
    name    TEXT PRIMARY KEY,
    nonce   BLOB NOT NULL,
    sealed  BLOB NOT NULL,
    changed REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Named keys for the TCP port, beside the home's own token (written by api/keys.py). Only their digests are kept.
CREATE TABLE api_keys (
    name    TEXT PRIMARY KEY,
    sha256  TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    used    REAL
) STRICT, WITHOUT ROWID;
