"""agentd: a local-first agent daemon for one machine."""

__version__ = "0.1.0"
