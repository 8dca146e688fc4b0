"""The user's files: where they are, and how they change."""
