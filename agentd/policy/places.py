"""Kinds of files, by their names: what starts programs, what builds, what tests."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePosixPath

NAMES = (
    *("conftest.py", "pytest.ini", ".pytest.ini", "setup.cfg", "tox.ini", "pyproject.toml", "package.json", ".npmrc"),
    *(".mcp.json", ".envrc", "sitecustomize.py", "usercustomize.py", "*.pth", ".pre-commit-config.yaml"),
    *("pytest.py", "ruff.py", "mypy.py", "black.py"),
)
FOLDERS = (".vscode", ".idea", ".husky", ".devcontainer")
WORKFLOWS = (".github", "workflows")
SHADOWS = ("pytest", "ruff", "mypy", "black")
"""Packages of these names would be taken for the tools."""
GIT = ".git"

_TEST = re.compile(
    r"(?:^|/)(?:tests?|testing|specs?|__tests__)/|(?:^|/)(?:test_[^/]*|[^/]*_test|[^/]*\.(?:test|spec))\.\w+$"
)
_BUILD = re.compile(
    r"(?:^|/)(?:makefile|gnumakefile|cmakelists\.txt|meson\.build|justfile|taskfile\.ya?ml|rakefile|gemfile|cargo\.toml|build\.rs"
    r"|go\.mod|pom\.xml|build\.gradle(?:\.kts)?|setup\.py|pyproject\.toml|setup\.cfg|package\.json|tsconfig[^/]*\.json"
    r"|[^/]*\.lock|package-lock\.json|pnpm-lock\.yaml|go\.sum|requirements[^/]*\.txt|[^/]*dockerfile[^/]*|compose\.ya?ml"
    r"|docker-compose[^/]*\.ya?ml|[^/]*\.(?:gradle|cmake|mk|nix|bazel|bzl|tf)|build|workspace)$"
)
_SERVER_BUILD = re.compile(
    r"(?:^|/)(?:\.github/(?:workflows|actions)/|\.circleci/|\.buildkite/|\.gitlab-ci[^/]*\.ya?ml$|\.travis\.yml$|jenkinsfile$"
    r"|azure-pipelines[^/]*\.ya?ml$|bitbucket-pipelines\.yml$|\.drone\.ya?ml$|\.woodpecker[^/]*(?:/|$)|appveyor\.yml$)"
)


def makes_programs_run(path: str) -> bool:
    """Whether something at this relative path starts programs, or steers what is started, by itself."""
    *folders, name = [part.casefold() for part in PurePosixPath(path).parts] or [""]
    if any(fnmatchcase(name, each) for each in NAMES) or {GIT, *FOLDERS} & {name, *folders}:
        return True
    if name.startswith(("__init__.", "__main__.")) and folders[-1:] and folders[-1] in SHADOWS:
        return True
    return WORKFLOWS in pairwise([*folders, name])


def is_test(path: str) -> bool:
    return _TEST.search(path.casefold()) is not None


def builds(path: str) -> bool:
    """Whether it says how a project is built or what it is built from."""
    return _BUILD.search(path.casefold()) is not None


def builds_on_servers(path: str) -> bool:
    """Whether it says what other machines run, with the keys that they hold."""
    return _SERVER_BUILD.search(path.casefold()) is not None
