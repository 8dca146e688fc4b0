"""The HTTP protocol that every front end speaks."""
