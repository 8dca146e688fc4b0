-- Files of workspaces as they stood before a program of the project ran there (written by workspace/survey.py). `mark`
-- tells whether a file is still the same without reading it; a file whose digest is empty was too large to be kept.
CREATE TABLE surveyed (
    workspace TEXT NOT NULL,
    path      BLOB NOT NULL,
    mark      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    mode      INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    digest    BLOB NOT NULL,
    PRIMARY KEY (workspace, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX surveyed_digest ON surveyed (digest) WHERE digest <> x'';

-- Programs that run, or were cut off by a crash; `since` is the position in `changes` at their start. A row without a
-- task says when a workspace was surveyed last.
CREATE TABLE looks (
    task      TEXT NOT NULL,
    key       TEXT NOT NULL,
    workspace TEXT NOT NULL,
    since     INTEGER NOT NULL,
    at        REAL NOT NULL,
    PRIMARY KEY (task, key, workspace)
) STRICT, WITHOUT ROWID;

CREATE INDEX pieces_stored ON pieces (stored);
CREATE INDEX changes_in_workspace ON changes (workspace, path, id);
