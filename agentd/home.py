"""Where everything of one agentd lies: the home, the places in it, and who may look inside."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentd.errors import ConfigError
from agentd.whole_file import write_whole

_SOCKET_PATH_LIMIT = 100
"""Bytes; the kernel takes 107 on Linux and 103 on macOS."""


class Places:
    """The places of a home, as properties over `home`."""

    home: Path

    @property
    def config_path(self) -> Path:
        return self.home / "agentd.toml"

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    @property
    def db_path(self) -> Path:
        return self.state_dir / "agentd.db"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def token_path(self) -> Path:
        return self.state_dir / "token"

    @property
    def vault_key_path(self) -> Path:
        """What opens the secrets in the database; kept apart from it, so that a copy of one alone is worth nothing."""
        return self.state_dir / "vault.key"

    @property
    def plugin_key_path(self) -> Path:
        """What signs the plugins of this home."""
        return self.state_dir / "plugins.key"

    @property
    def url_path(self) -> Path:
        """Where a daemon that listens on TCP leaves its address."""
        return self.state_dir / "url"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def copies_dir(self) -> Path:
        """Copies of workspaces, in which tasks show what they would do."""
        return self.home / "copies"

    @property
    def plugins_dir(self) -> Path:
        return self.home / "plugins_generated"

    @property
    def policies_dir(self) -> Path:
        """The home's own rules, or those that came with the package when it has none."""
        own = self.home / "policies"
        return own if own.is_dir() else defaults_dir() / "policies"

    @property
    def socket_path(self) -> Path:
        """The daemon's unix socket: in `state/`, or in a private runtime folder when that path is too long to bind."""
        path = self.state_dir / "agentd.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return _runtime_dir() / f"{name}.sock"


@dataclass(frozen=True, slots=True)
class Home(Places):
    """A home known only by its folder: enough to find the daemon without reading the settings."""

    home: Path


def find_home(explicit: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The home to use: `explicit`, else `AGENTD_HOME`, else the checkout this code runs from, else the user's own."""
    if explicit is not None:
        return explicit.expanduser().resolve()
    if named := environ.get("AGENTD_HOME"):
        return Path(named).expanduser().resolve()
    checkout = _checkout()
    return checkout if checkout is not None else _user_home()


def defaults_dir() -> Path:
    """The folder with the `policies/` and `models/catalog.toml` that a new home starts with."""
    packaged = Path(__file__).resolve().parent / "defaults"
    if packaged.is_dir():
        return packaged
    checkout = _checkout()
    if checkout is None:
        raise ConfigError(f"this installation has no default policies: {packaged} is missing", hint="install it again")
    return checkout


def make_private(folder: Path) -> Path:
    """Make `folder` if need be, and readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Make `path` a file for its owner alone, with all of `text` or not at all, on the disk when this returns."""
    make_private(path.parent)
    write_whole(path, text, 0o600)


def _checkout() -> Path | None:
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "policies").is_dir() else None


def _user_home() -> Path:
    import platformdirs  # 45 ms; only an installed copy without AGENTD_HOME gets here

    return platformdirs.user_data_path("agentd", appauthor=False)


def private_runtime_dir(folder: Path) -> Path:
    """Make `folder`; refused when somebody else could have made it or can look inside (it may lie in /tmp)."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"no short folder for the socket: {folder}: {error.strerror}", hint="use a home with a shorter path"
        ) from error
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"{folder} is not a folder of this user alone, so the daemon's socket may not lie in it",
            hint="remove it, or use a home with a shorter path",
        )
    return folder


def _runtime_dir() -> Path:
    """A short folder of this user alone, for sockets whose home has too long a path."""
    if sys.platform == "win32":  # no unix sockets are used there
        return Path(tempfile.gettempdir())
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    short = 0 < len(runtime) < 60 and Path(runtime).is_dir()
    return private_runtime_dir(Path(runtime, "agentd") if short else Path(f"/tmp/agentd-{os.geteuid()}"))
