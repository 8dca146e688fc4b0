-- What the agent's changes replaced, so that they can be taken back (written by workspace/blobs.py and
-- workspace/snapshots.py). Contents are kept once, cut into pieces; both go by SHA-256: a piece by that of its bytes, a
-- content by that of the digests of its pieces.
CREATE TABLE pieces (
    digest BLOB PRIMARY KEY,
    stored INTEGER NOT NULL,           -- bytes of `data`
    packed INTEGER NOT NULL,           -- 0 as it is, 1 compressed by zlib, 2 compressing does not help
    data   BLOB NOT NULL
) STRICT;
CREATE INDEX pieces_unpacked ON pieces (packed) WHERE packed = 0;

CREATE TABLE contents (
    digest BLOB PRIMARY KEY,
    size   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE content_pieces (
    content  BLOB NOT NULL REFERENCES contents (digest) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    piece    BLOB NOT NULL REFERENCES pieces (digest),
    PRIMARY KEY (content, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_pieces_piece ON content_pieces (piece);

-- One row for each path that a call changed, written before it is changed. `done` 0: whether it came to that was not
-- recorded. `undo`: 0 for what the task did, n for its n-th undo. `*_digest` names bytes that are in `contents`, but for
-- large files after a change, of which only the digest is known. Paths are bytes: a name need not be text.
CREATE TABLE changes (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    task          TEXT NOT NULL,
    key           TEXT NOT NULL,
    origin        TEXT NOT NULL CHECK (origin IN ('tool', 'command', 'test', 'restore')),
    undo          INTEGER NOT NULL DEFAULT 0,
    done          INTEGER NOT NULL,
    at            REAL NOT NULL,
    workspace     TEXT NOT NULL,
    path          BLOB NOT NULL,
    before_kind   TEXT NOT NULL CHECK (before_kind IN ('absent', 'file', 'link', 'folder', 'other')),
    before_mode   INTEGER NOT NULL,
    before_size   INTEGER NOT NULL,
    before_digest BLOB NOT NULL,
    after_kind    TEXT NOT NULL CHECK (after_kind IN ('absent', 'file', 'link', 'folder', 'other')),
    after_mode    INTEGER NOT NULL,
    after_size    INTEGER NOT NULL,
    after_digest  BLOB NOT NULL
) STRICT;
CREATE INDEX changes_task ON changes (task, path, id);
CREATE INDEX changes_before ON changes (before_digest) WHERE before_digest <> x'';
CREATE INDEX changes_after ON changes (after_digest) WHERE after_digest <> x'';

-- Tasks whose changes were forgotten, so that an undo can say so.
CREATE TABLE changes_pruned (
    task TEXT PRIMARY KEY,
    at   REAL NOT NULL,
    why  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
