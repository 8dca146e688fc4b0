"""Copies of workspaces: whole, apart from the original, bounded, and gone when they are not needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from agentd.errors import Cancelled, ToolFailed
from agentd.workspace.shadow import Shadows

NEVER = threading.Event()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.py").write_text("a = 1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def shadows(tmp_path: Path, *, mb: int = 10, active: tuple[str, ...] = (), spare: tuple[Path, ...] = ()) -> Shadows:
    return Shadows(tmp_path / "copies", max_mb=lambda: mb, active=lambda: active, spare=spare)


def told(of: Shadows, root: Path, *also: str) -> dict[str, tuple[bytes | None, bytes | None]]:
    return {each.path: (each.before.data, each.after.data) for each in of.changes("t1", root, also)}


def test_what_is_done_in_the_copy_is_told_and_the_original_stays(tmp_path: Path, root: Path) -> None:
    (root / ".gitignore").write_text("*.log\n")
    of = shadows(tmp_path)
    copy = of.open("t1", root, NEVER)
    assert (copy.name, of.open("t1", root, NEVER)) == ("work", copy)
    assert told(of, root) == {}
    (copy / "src" / "a.py").write_text("a = 2\n")
    (copy / "new").mkdir()
    (copy / "new" / "b.py").write_text("b\n")
    (copy / "run.sh").unlink()
    (copy / "x.log").write_text("noise")
    (copy / "y.log").write_text("meant")
    (root / "src" / "a.py").write_text("mine\n")  # the user's own edit meanwhile is no change of the task
    assert told(of, root, "y.log") == {
        "new/b.py": (None, b"b\n"),
        "run.sh": (b"#!/bin/sh\n", None),
        "src/a.py": (b"a = 1\n", b"a = 2\n"),
        "y.log": (None, b"meant"),
    }
    assert (root / "src" / "a.py").read_text() == "mine\n"
    of.close("t1")
    assert list((tmp_path / "copies").iterdir()) == []


def test_modes_are_copied_and_their_changes_told(tmp_path: Path, root: Path) -> None:
    of = shadows(tmp_path)
    copy = of.open("t1", root, NEVER)
    assert os.access(copy / "run.sh", os.X_OK)
    (copy / "run.sh").chmod(0o644)
    (change,) = of.changes("t1", root)
    assert (change.before.mode, change.after.mode) == (0o755, 0o644)


def test_links_stay_in_the_copy(tmp_path: Path, root: Path) -> None:
    (root / "whole").symlink_to(root / "src" / "a.py")
    (root / "src" / "up").symlink_to(root / "run.sh")
    (root / "short").symlink_to("src/a.py")
    (root / "outside").symlink_to("/etc/hostname")
    copy = shadows(tmp_path).open("t1", root, NEVER)
    for name, target in {"whole": "src/a.py", "src/up": "run.sh", "short": "src/a.py"}.items():
        assert (copy / name).resolve() == copy / target
    assert os.readlink(copy / "outside") == "/etc/hostname"


def test_links_that_lead_out_and_in_again_stay_in_the_copy(tmp_path: Path, root: Path) -> None:
    (tmp_path / "alias").symlink_to(root.parent)
    (root / "whole").symlink_to(tmp_path / "alias" / root.name / "run.sh")
    (root / "src" / "up").symlink_to(f"../../../{root.parent.name}/{root.name}/run.sh")
    copy = shadows(tmp_path).open("t1", root, NEVER)
    for name in ("whole", "src/up"):
        assert (copy / name).resolve() == (copy / "run.sh").resolve()


@pytest.mark.parametrize("form", ["file", "link"])
def test_a_repository_that_lies_elsewhere_is_left_out(tmp_path: Path, root: Path, form: str) -> None:
    real = tmp_path / "real"
    subprocess.run(["git", "init", "-q", str(real)], check=True)
    if form == "file":
        (root / ".git").write_text(f"gitdir: {real / '.git'}\n")
    else:
        (root / ".git").symlink_to(real / ".git")
    copy = shadows(tmp_path).open("t1", root, NEVER)
    assert not os.path.lexists(copy / ".git")


def test_a_repository_of_its_own_is_copied(tmp_path: Path, root: Path) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    of = shadows(tmp_path)
    copy = of.open("t1", root, NEVER)
    assert (copy / ".git" / "HEAD").read_text() == (root / ".git" / "HEAD").read_text()
    (copy / ".git" / "new").write_text("x")
    assert told(of, root) == {}


def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path, root: Path) -> None:
    (root / "big").write_bytes(b"\0" * (2 << 20))
    with pytest.raises(ToolFailed, match=r"too large to work in a copy of it: .* 1 MiB"):
        shadows(tmp_path, mb=1).open("t1", root, NEVER)
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_cancelled_copy_leaves_nothing(tmp_path: Path, root: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        shadows(tmp_path).open("t1", root, cancel)
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_copy_that_was_cut_off_is_made_anew(tmp_path: Path, root: Path) -> None:
    of = shadows(tmp_path, active=("t1",))
    copy = of.open("t1", root, NEVER)
    (tmp_path / "copies" / "t1" / "ready").unlink()
    (copy / "half").write_text("x")
    assert not (of.open("t1", root, NEVER) / "half").exists()


def test_copies_of_ended_tasks_are_swept(tmp_path: Path, root: Path) -> None:
    of = shadows(tmp_path, active=("t2",))
    of.open("t1", root, NEVER)
    of.open("t2", root, NEVER)
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["t2"]


def test_places_that_are_spared_and_the_copies_themselves_are_not_copied(tmp_path: Path, root: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "key").write_text("secret")
    outer = shadows(tmp_path, spare=(tmp_path / "state",)).open("t1", tmp_path, NEVER)
    assert sorted(path.name for path in outer.iterdir()) == ["work"]
    shutil.rmtree(tmp_path / "copies")
