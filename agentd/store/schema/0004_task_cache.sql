-- Whether kept replies of models may be given to a task (written by tasks/queue.py).
ALTER TABLE tasks ADD COLUMN cache INTEGER NOT NULL DEFAULT 1;
