-- Whether a task is to make a tool for its goal and do nothing else (written by tasks/queue.py).
ALTER TABLE tasks ADD COLUMN tool INTEGER NOT NULL DEFAULT 0;
