-- The only paths that a task may change, as a JSON list of globs; empty for any (written by tasks/queue.py).
ALTER TABLE tasks ADD COLUMN boundaries TEXT NOT NULL DEFAULT '[]';
