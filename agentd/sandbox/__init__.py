"""How code that is not trusted runs."""
