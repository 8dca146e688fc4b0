"""`git status|diff|log|commit` typed as a command line: known options only, run like the git tools."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from agentd.errors import ToolFailed, ToolMisused
from agentd.sandbox.launch import Completed
from agentd.tools.git import commit, commit_own, committed
from agentd.tools.programs import must_end, refuse_outside
from agentd.tools.repository import TIMEOUT, Change, Repository, open_repository, readable
from agentd.tools.tool import ToolContext

# An option that is not listed is refused: others write files (--output), read outside (--no-index), run programs
# (--ext-diff, --show-signature, the placeholder %G), look into submodules, or change the lines of a diff by which
# files that may not be read are told (--color, --word-diff).
_DIFF = (
    r"-p|-u|--patch|--no-patch|--stat(=[\d,]+)?|--dirstat|--compact-summary|--full-index|--abbrev=\d+|-a|--text|--shortstat|--numstat|--summary|--name-only|--name-status|--raw|-z|-U\d+"
    r"|--unified=\d+|-w|-b|--ignore-all-space|--ignore-space-change|--ignore-space-at-eol|--ignore-cr-at-eol"
    r"|--ignore-blank-lines|--minimal|--patience"
    r"|--histogram|-M\d*%?|-C\d*%?|--find-renames|--no-renames|--diff-filter=\w+|--no-color|--color=never|--no-ext-diff"
    r"|--no-textconv"
)
_OPTIONS = {
    "status": re.compile(
        r"-s|-b|-sb|--short|--branch|--long|--porcelain(=v?[12])?|-z|-u(no|normal|all)?|--untracked-files(=\w+)?"
        r"|--ignored|--no-renames|--show-stash|--ahead-behind"
    ),
    "diff": re.compile(rf"{_DIFF}|--cached|--staged|--merge-base|-R|--check|--exit-code|--quiet"),
    "log": re.compile(
        rf"{_DIFF}|-\d+|-n\d+|--max-count=\d+|--oneline|--graph|--decorate(=\w+)?|--no-decorate|--abbrev-commit|--all"
        r"|--branches|--tags|--remotes|--date-order|--topo-order|--author-date-order|--no-abbrev-commit|--boundary"
        r"|--left-right|--cherry-pick|--simplify-by-decoration|--show-pulls|--invert-grep|--all-match|-E|-F|-[SG].+|--pretty"
        r"|--reverse|--follow|--merges|--no-merges|--first-parent|-i|--date=[\w:%-]+|--skip=\d+"
        r"|--(since|after|until|before|author|committer|grep)=.*|--(format|pretty)=.*"
    ),
}
_VALUED = {"log": ("-n", "--since", "--after", "--until", "--before", "--author", "--committer", "--grep", "-S", "-G")}
_SIGNED = re.compile(r"%[-+ ]?G")
_PATCH = re.compile(r"-p|-u|--patch|-U\d+|--unified=\d+")
_SILENT = ("-q", "--quiet", "-v", "--verbose", "-n", "--no-verify", "--no-gpg-sign", "--no-edit")
"""Options of commit that say what holds anyway."""


def git_command(ctx: ToolContext, arguments: Sequence[str]) -> Completed:
    """Run what stands after `git`; `ToolMisused` for anything but the four commands and their known options."""
    name, *rest = arguments or ("",)
    with open_repository(ctx) as repository:
        if name == "commit":
            return _commit(ctx, repository, rest)
        if name not in _OPTIONS:
            raise ToolMisused(f"git {name} is not offered", hint="there are git status, git diff, git log, git commit")
        _refuse_unknown(ctx, name, rest)
        safe = ["--ignore-submodules=all"] + (["--no-ext-diff", "--no-textconv"] if name != "status" else [])
        shown = [*safe, "--no-show-signature"] if name == "log" else safe
        done = repository.run(name, *shown, *rest)
    must_end(done, f"git {name}", TIMEOUT)
    return Completed(
        code=done.code, stdout=readable(done.stdout, ctx.may_read), stderr=done.stderr, seconds=done.seconds
    )


def _refuse_unknown(ctx: ToolContext, name: str, arguments: Sequence[str]) -> None:
    if "--graph" in arguments and any(map(_PATCH.fullmatch, arguments)):
        # Its lines stand before those by which files that may not be read are told.
        raise ToolMisused("git log: --graph does not go with a patch", hint="leave out --graph or -p")
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if word in _VALUED.get(name, ()):
            next(words, None)
        elif word.startswith("-"):
            if not _OPTIONS[name].fullmatch(word) or _SIGNED.search(word):
                raise ToolMisused(f"git {name}: option {word!r} is not offered", hint="leave it out")
        else:
            refuse_outside(ctx, word)
    for word in words:
        refuse_outside(ctx, word)


def _commit(ctx: ToolContext, repository: Repository, arguments: Sequence[str]) -> Completed:
    started = time.monotonic()
    messages, everything, paths = _parse(ctx, arguments)
    if not messages:
        raise ToolMisused("git commit: there is no message", hint='git commit -m "what changed"')
    if ctx.own is not None:
        text = committed(ctx, repository, commit_own(ctx, repository, "\n\n".join(messages), paths))
        return Completed(code=0, stdout=text, stderr="", seconds=time.monotonic() - started)
    changes = _chosen(repository, everything, paths)
    found = repository.staged() if changes is None else changes
    blocked = [change.path for change in found if not ctx.may_read(change.path)]
    if not found or blocked:
        what = f"policy keeps {', '.join(blocked)} from being read" if blocked else "nothing is staged or changed"
        raise ToolFailed(f"nothing was committed: {what}", hint="git commit -a takes every changed file")
    sha = commit(ctx, repository, "\n\n".join(messages), changes)
    text = committed(ctx, repository, sha)
    return Completed(code=0, stdout=text, stderr="", seconds=time.monotonic() - started)


def _chosen(repository: Repository, everything: bool, paths: Sequence[str]) -> list[Change] | None:
    """The changes to commit; None for what is staged."""
    if paths:
        found = {change.path: change for path in paths for change in repository.changes(path, renames=False)}
        return list(found.values())
    if everything:
        return [change for change in repository.changes(renames=False) if change.tracked]
    return None


def _parse(ctx: ToolContext, arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """Messages, whether -a was given, and paths."""
    messages: list[str] = []
    paths: list[str] = []
    everything = False
    words = iter(arguments)
    for word in words:
        if word in ("-m", "--message", "-am", "-qm"):
            everything |= word == "-am"
            messages.append(_value(word, words))
        elif word.startswith("--message="):
            messages.append(word.partition("=")[2])
        elif word in ("-a", "--all"):
            everything = True
        elif word == "--":
            paths.extend(words)
        elif word.startswith("-") and word not in _SILENT:
            raise ToolMisused(f"git commit: option {word!r} is not offered", hint="there are -m, -a and paths")
        elif not word.startswith("-"):
            paths.append(word)
    for path in paths:
        ctx.workspace.resolve(path)
    return messages, everything, paths


def _value(option: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise ToolMisused(f"git commit: {option} needs a message", hint='git commit -m "what changed"')
    return value
