"""Real diffs and their damaged variants, applied to the files they are of: exact, refused or wrong."""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agentd.errors import Denied, ToolFailed
from agentd.workspace.diff import parse
from agentd.workspace.patch import apply_diff
from agentd.workspace.patch_files import apply_files, put_all
from agentd.workspace.paths import Workspace

MUST_BE_EXACT = ("as it is", "counts off by one", "all hunks at line 1", "file has CRLF", "diff has CRLF")
HEADER = re.compile(r"(?m)^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file before, a diff of it, and the file after, as `git apply` makes it."""

    path: str
    old: str
    diff: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`damage` gives what is applied, to what, and what must come of it; None where it changes nothing."""

    damage: Callable[[Sample, random.Random], Sample | None]
    refused: bool = False
    """Whether nothing but a refusal is right: what was to be done cannot be known any more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="git repositories, or .jsonl files with old, diff, new and path")
    parser.add_argument("--most", type=int, default=300, help="diffs of each source")
    parser.add_argument(
        "--show", type=int, default=0, help="so many of the wrong ones, and of the refused that must not be"
    )
    options = parser.parse_args()
    samples = [sample for source in options.sources for sample in found(Path(source), options.most)]
    print(f"{len(samples)} diffs of one file that git apply takes")
    fine = report(samples, options.show)
    repositories = [Path(source) for source in options.sources if not source.endswith(".jsonl")]
    commits = [made for repository in repositories for made in commits_of(repository, options.most)]
    print(f"\n{len(commits)} commits that git apply takes, {sum(len(made.after) for made in commits)} files after them")
    fine &= report_commits(commits, options.show)
    sys.exit(0 if fine else 1)


def report(samples: Sequence[Sample], show: int = 0) -> bool:
    """Print the table; whether nothing is wrong, and what must be exact is."""
    print(f"{'variant':30}{'exact':>8}{'refused':>9}{'wrong':>7}")
    fine = True
    for name, variant in VARIANTS.items():
        counts: Counter[str] = Counter()
        for number, sample in enumerate(samples):
            damaged = variant.damage(sample, random.Random(number))
            if damaged is None:
                continue
            end, reason = applied(damaged)
            counts[end] += 1
            if show and (end == "wrong" or (end == "refused" and name in MUST_BE_EXACT)):
                show -= 1
                print(f"--- {name}: {end} {sample.path}: {reason}\n{damaged.diff[:1500]}")
        print(f"{name:30}{counts['exact']:8}{counts['refused']:9}{counts['wrong']:7}")
        fine &= not counts["wrong"]
    return fine


def applied(sample: Sample) -> tuple[str, str]:
    """exact, refused or wrong; and why it was refused."""
    try:
        result = apply_diff(sample.old, sample.diff, sample.path).text
    except ToolFailed as refusal:
        return "refused", refusal.message
    return ("exact" if result == sample.new else "wrong"), ""


# where diffs come from ------------------------------------------------------------------------------------------------


def found(source: Path, most: int) -> Iterator[Sample]:
    samples = _listed(source) if source.suffix == ".jsonl" else history(source)
    with tempfile.TemporaryDirectory() as folder:
        for sample in samples:
            if most <= 0:
                return
            if taken(sample, Path(folder)):
                most -= 1
                yield sample


def _listed(source: Path) -> Iterator[Sample]:
    for line in source.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Sample(path=row["path"], old=row["old"], diff=row["diff"], new=row["new"])


def history(repository: Path, commits: int = 2000) -> Iterator[Sample]:
    """Changes of one text file each, newest first."""
    listed = _git(repository, "log", "--no-merges", f"-{commits}", "--format=%x00%H", "--raw", "--no-abbrev",
                  "--diff-filter=M", "--no-renames", "HEAD")  # fmt: skip
    for entry in listed.decode("utf-8", "surrogateescape").split("\0")[1:]:
        sha, _, rows = entry.partition("\n")
        for row in rows.splitlines():
            if not row.startswith(":100"):
                continue
            fields, path = row.split("\t", 1)
            _, _, old, new, _ = fields.split(" ")
            try:
                before = _git(repository, "cat-file", "blob", old).decode()
                after = _git(repository, "cat-file", "blob", new).decode()
                diff = _git(repository, "diff", "--no-ext-diff", "--no-textconv", f"{sha}^", sha, "--", path).decode()
            except (subprocess.CalledProcessError, UnicodeDecodeError):
                continue
            if "\0" not in before + after and "\n@@" in diff and not path.startswith('"'):
                yield Sample(path=path, old=before, diff=diff, new=after)


def taken(sample: Sample, folder: Path) -> bool:
    """Whether `git apply` takes the diff, and makes of it what stands in the sample."""
    path = folder / sample.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample.old.encode("utf-8", "surrogatepass"))
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=folder, input=sample.diff.encode("utf-8", "surrogatepass"), capture_output=True)
    made = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return done.returncode == 0 and made == sample.new.encode("utf-8", "surrogatepass")


def _git(repository: Path, *args: str) -> bytes:
    return subprocess.run(["git", "-C", str(repository), *args], check=True, capture_output=True).stdout


# commits --------------------------------------------------------------------------------------------------------------

Tree: TypeAlias = dict[str, tuple[bytes, bool]]
"""Content of each file, and whether it may be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The files that a commit touches before and after it, as `git apply` makes them of its diff."""

    diff: str
    before: Tree
    after: Tree


def commits_of(repository: Path, most: int, among: int = 1000) -> Iterator[Commit]:
    listed = _git(repository, "log", "--no-merges", "--min-parents=1", f"-{among}", "--format=%H", "HEAD")
    for sha in listed.decode().split():
        if most <= 0:
            return
        made = _commit(repository, sha)
        if made is not None:
            most -= 1
            yield made


def _commit(repository: Path, sha: str) -> Commit | None:
    raw = _git(repository, "diff", "-M", "-C", "--raw", "--no-abbrev", "-z", f"{sha}^", sha)
    cells = iter(raw.decode("utf-8", "surrogateescape").split("\0"))
    before: Tree = {}
    for cell in cells:
        if not cell:
            continue
        mode, _, blob, _, state = cell[1:].split(" ")
        path = next(cells)
        if state[0] in "RC":
            next(cells)
        if mode not in ("100644", "100755", "000000") or state[0] == "T":
            return None
        if mode != "000000":
            before[path] = _git(repository, "cat-file", "blob", blob), mode == "100755"
    try:
        diff = _git(repository, "diff", "-M", "-C", "--no-ext-diff", "--no-textconv", f"{sha}^", sha).decode()
    except UnicodeDecodeError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        _lay(Path(folder), before)
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        done = subprocess.run(command, cwd=folder, input=diff.encode(), capture_output=True)
        return Commit(diff=diff, before=before, after=_tree(Path(folder))) if diff and done.returncode == 0 else None


def _lay(folder: Path, tree: Tree) -> None:
    for path, (data, executable) in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        (folder / path).chmod(0o755 if executable else 0o644)


def _tree(folder: Path) -> Tree:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for path in files
    }


def patched(commit: Commit) -> tuple[str, str]:
    """exact, refused or wrong; and why it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        _lay(Path(folder), commit.before)
        workspace = Workspace(Path(folder))
        try:
            put_all(workspace, apply_files(workspace, parse(commit.diff)), "key")
        except (ToolFailed, Denied) as refusal:
            return ("refused" if _tree(Path(folder)) == commit.before else "wrong"), refusal.message
        return ("exact" if _tree(Path(folder)) == commit.after else "wrong"), ""


def report_commits(commits: Sequence[Commit], show: int = 0) -> bool:
    """As `report`, of whole commits."""
    print(f"{'variant':30}{'exact':>8}{'refused':>9}{'wrong':>7}")
    fine = True
    for name, damage in COMMIT_VARIANTS.items():
        counts: Counter[str] = Counter()
        for number, commit in enumerate(commits):
            diff = damage(commit.diff, random.Random(number))
            if diff is None:
                continue
            end, reason = patched(Commit(diff=diff, before=commit.before, after=commit.after))
            counts[end] += 1
            if show and (end == "wrong" or (end == "refused" and name == "as it is")):
                show -= 1
                print(f"--- {name}: {end}: {reason}\n{diff[:1500]}")
        print(f"{name:30}{counts['exact']:8}{counts['refused']:9}{counts['wrong']:7}")
        fine &= not counts["wrong"]
    return fine


def _files(diff: str) -> list[str]:
    return re.split(r"(?m)^(?=diff --git )", diff)[1:]


def _through(damage: Callable[[Sample, random.Random], Sample | None]) -> Callable[[str, random.Random], str | None]:
    """What does it to the hunks of one file, done to those of every file."""

    def all_files(diff: str, chance: random.Random) -> str | None:
        parts = []
        for part in _files(diff):
            damaged = damage(Sample(path="", old="", diff=part, new=""), chance) if "\n@@" in part else None
            parts.append(damaged.diff if damaged is not None else part)
        changed = "".join(parts)
        return None if changed == diff else changed

    return all_files


def _shuffled(diff: str, chance: random.Random) -> str | None:
    files = _files(diff)
    chance.shuffle(files)
    return "".join(files) if len(files) > 1 else None


def _block_each(diff: str, chance: random.Random) -> str:
    return "".join(f"Then this:\n\n```diff\n{part}```\n\n" for part in _files(diff)) + "That is all.\n"


def _plain_heads(diff: str, chance: random.Random) -> str | None:
    """Without the lines that only git writes, where they say nothing more."""
    if re.search(r"(?m)^(rename|copy|old mode|new file mode 100755|deleted file mode)", diff) or "e69de29" in diff:
        return None
    return re.sub(r"(?m)^(diff --git|index|new file mode) .*\n", "", diff)


def _no_prefixes(diff: str, chance: random.Random) -> str | None:
    plain = _plain_heads(diff, chance)
    return (
        None if plain is None else re.sub(r"(?m)^(--- a/|\+\+\+ b/)(?=.*\n(?:@@|\+\+\+ ))", lambda m: m[1][:4], plain)
    )


def _as_envelope(diff: str, chance: random.Random) -> str | None:
    """As `*** Begin Patch`, which knows neither modes nor files without a last newline."""
    if re.search(r"(?m)^(copy|old mode|new file mode 100755|\\ No newline)", diff) or '"' in diff.split("\n@@")[0]:
        return None
    said = ["*** Begin Patch"]
    for part in _files(diff):
        head, *hunks = _hunks(part)
        names = [
            re.search(rf"(?m)^{lead}(.*?)\t?$", head) for lead in ("--- a/", r"\+\+\+ b/", "rename to ", "rename from ")
        ]
        old, new, target, source = (name[1] if name else "" for name in names)
        if not (old or new or source):
            return None
        if "\ndeleted file" in head:
            said.append(f"*** Delete File: {old}")
            continue
        said.append(f"*** Add File: {new}" if not (old or source) else f"*** Update File: {old or source}")
        said += [f"*** Move to: {target}"] * bool(target)
        for hunk in hunks:
            heading = HEADER.sub("@@", hunk.split("\n", 1)[0], count=1)
            said += [*([heading] if old else []), *hunk.split("\n")[1:-1]]
    return "\n".join([*said, "*** End Patch", ""])


# variants -------------------------------------------------------------------------------------------------------------


def _with(sample: Sample, diff: str) -> Sample | None:
    return None if diff == sample.diff else Sample(path=sample.path, old=sample.old, diff=diff, new=sample.new)


def _hunks(diff: str) -> list[str]:
    """The head, then each hunk."""
    return re.split(r"(?m)^(?=@@ -\d)", diff)


def _headers(sample: Sample, make: Callable[[int, int, int, int], str]) -> Sample | None:
    def header(match: re.Match[str]) -> str:
        a, b, c, d = match.groups()
        return make(int(a), int(b or 1) if b != "0" else 0, int(c), int(d or 1) if d != "0" else 0)

    head, *hunks = _hunks(sample.diff)
    return _with(sample, head + "".join(HEADER.sub(header, hunk, count=1) for hunk in hunks))


def _off_by_one(sample: Sample, chance: random.Random) -> Sample | None:
    def off(count: int) -> int:
        return max(0, count + chance.choice((-1, 0, 1)))

    return _headers(sample, lambda a, b, c, d: f"@@ -{a},{off(b)} +{c},{off(d)} @@")


def _shifted(sample: Sample, chance: random.Random) -> Sample | None:
    by = chance.choice([n for n in range(-30, 200) if n])
    return _headers(sample, lambda a, b, c, d: f"@@ -{max(1, a + by)},{b} +{max(1, c + by)},{d} @@")


def _each_shifted(sample: Sample, chance: random.Random) -> Sample | None:
    def off(line: int) -> int:
        return max(1, line + chance.randint(-20, 20))

    return _headers(sample, lambda a, b, c, d: f"@@ -{off(a)},{b} +{off(c)},{d} @@")


def _crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _file_crlf(sample: Sample, chance: random.Random) -> Sample | None:
    if "\r" in sample.old + sample.diff:
        return None
    return Sample(path=sample.path, old=_crlf(sample.old), diff=sample.diff, new=_crlf(sample.new))


def _diff_crlf(sample: Sample, chance: random.Random) -> Sample | None:
    return None if "\r" in sample.old + sample.diff else _with(sample, _crlf(sample.diff))


def _body_crlf(sample: Sample, chance: random.Random) -> Sample | None:
    """Only the lines of the hunks."""
    if "\r" in sample.old + sample.diff:
        return None
    return _with(sample, re.sub(r"(?m)^([ +-](?!-- |\+\+ ).*)$", "\\1\r", sample.diff))


def _blank_lost(sample: Sample, chance: random.Random) -> Sample | None:
    return _with(sample, re.sub(r"(?m)^ $", "", sample.diff))


def _ends_stripped(sample: Sample, chance: random.Random) -> Sample | None:
    return _with(sample, re.sub(r"(?m)^( .*?)[ \t]+$", "\\1", sample.diff))


def _fenced(sample: Sample, chance: random.Random) -> Sample | None:
    return _with(sample, f"Here is the change:\n\n```diff\n{sample.diff}```\n\nIt does:\n- what was asked\n+ no more\n")


def _context(lines: int) -> Callable[[Sample, random.Random], Sample | None]:
    def reduced(sample: Sample, chance: random.Random) -> Sample | None:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("old", sample.old), ("new", sample.new)):
                Path(folder, name).write_bytes(text.encode("utf-8", "surrogatepass"))
            command = ["git", "diff", "--no-index", f"-U{lines}", "old", "new"]
            diff = subprocess.run(command, cwd=folder, capture_output=True).stdout.decode("utf-8", "surrogatepass")
        return _with(sample, "".join(_hunks(diff)[1:]))

    return reduced


def _swapped(sample: Sample, chance: random.Random) -> Sample | None:
    head, *hunks = _hunks(sample.diff)
    chance.shuffle(hunks)
    return None if "\\ No newline" in sample.diff else _with(sample, head + "".join(hunks))


def _doubled(sample: Sample, chance: random.Random) -> Sample | None:
    head, *hunks = _hunks(sample.diff)
    at = chance.randrange(len(hunks))
    hunks.insert(chance.randint(at, len(hunks)), hunks[at])
    return _with(sample, head + "".join(hunks))


def _tabs(sample: Sample, chance: random.Random) -> Sample | None:
    return _with(sample, re.sub(r"(?m)^( .*)$", lambda match: match[1].expandtabs(4), sample.diff))


def _cut(sample: Sample, chance: random.Random) -> Sample | None:
    """Cut off inside a hunk, so that at least two lines of it are missing and one of them changes something."""
    head, *hunks = _hunks(sample.diff)
    at = chance.randrange(len(hunks))
    lines = hunks[at].split("\n")[:-1]
    last = max(number for number, line in enumerate(lines) if line.startswith(("+", "-")))
    latest = min(last, len(lines) - 2)
    if latest < 2:
        return None
    kept = "\n".join(lines[: chance.randint(2, latest)])
    return _with(sample, head + "".join(hunks[:at]) + kept + chance.choice(("\n", "")))


def _lost_line(sample: Sample, chance: random.Random) -> Sample | None:
    """A line of context is missing within a hunk."""
    head, *hunks = _hunks(sample.diff)
    at = chance.randrange(len(hunks))
    lines = hunks[at].split("\n")
    changed = [number for number, line in enumerate(lines) if line.startswith(("+", "-"))]
    inner = [n for n in range(changed[0], changed[-1]) if lines[n].startswith(" ")]
    if not inner:
        return None
    del lines[chance.choice(inner)]
    hunks[at] = "\n".join(lines)
    return _with(sample, head + "".join(hunks))


VARIANTS = {
    "as it is": Variant(damage=lambda sample, chance: sample),
    "counts off by one": Variant(damage=_off_by_one),
    "all hunks at line 1": Variant(damage=lambda s, c: _headers(s, lambda a, b, c, d: f"@@ -1,{b} +1,{d} @@")),
    "file has CRLF": Variant(damage=_file_crlf),
    "diff has CRLF": Variant(damage=_diff_crlf),
    "only hunk lines have CRLF": Variant(damage=_body_crlf),
    "all hunks @@ -1 +1 @@": Variant(damage=lambda s, c: _headers(s, lambda a, b, c, d: "@@ -1 +1 @@")),
    "@@ ... @@": Variant(damage=lambda s, c: _headers(s, lambda a, b, c, d: "@@ ... @@")),
    "@@ @@": Variant(damage=lambda s, c: _headers(s, lambda a, b, c, d: "@@ @@")),
    "all numbers shifted alike": Variant(damage=_shifted),
    "each number shifted": Variant(damage=_each_shifted),
    "blank context lost": Variant(damage=_blank_lost),
    "ends of context stripped": Variant(damage=_ends_stripped, refused=True),
    "fenced, with words": Variant(damage=_fenced),
    "one line of context": Variant(damage=_context(1)),
    "no context": Variant(damage=_context(0)),
    "hunks out of order": Variant(damage=_swapped),
    "a hunk twice": Variant(damage=_doubled, refused=True),
    "tabs to spaces in context": Variant(damage=_tabs, refused=True),
    "a context line lost": Variant(damage=_lost_line, refused=True),
    "cut off": Variant(damage=_cut, refused=True),
}

COMMIT_VARIANTS: dict[str, Callable[[str, random.Random], str | None]] = {
    "as it is": lambda diff, chance: diff,
    "counts off by one": _through(_off_by_one),
    "all hunks at line 1": _through(
        lambda s, c: _headers(s, lambda a, b, c, d: f"@@ -{min(a, 1)},{b} +{min(c, 1)},{d} @@")
    ),
    "fenced, with words": lambda diff, chance: f"Here it is:\n```diff\n{diff}```\n- done\n",
    "a block for each file": _block_each,
    "files out of order": _shuffled,
    "plain heads": _plain_heads,
    "plain heads, no a/ and b/": _no_prefixes,
    "diff has CRLF": lambda diff, chance: None if "\r" in diff else _crlf(diff),
    "*** Begin Patch": _as_envelope,
}

if __name__ == "__main__":
    main()
