"""The one SQLite file: database, audit log, events, whole outputs, and the lock of its daemon."""
