"""Nothing named by a path is ever outside the root, and no write is ever half done."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.errors import AgentdError, BadInput, Denied, ToolFailed
from agentd.workspace import paths
from agentd.workspace.names import normal
from agentd.workspace.paths import Workspace

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and special files of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace beside something secret, with links of every kind."""
    root = tmp_path / "work"
    (root / "src").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    (root / "notes.txt").write_text("hello\n")
    (root / "src" / "a.py").write_text("x = 1\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("SECRET")
    if os.name != "nt":
        (root / "out").symlink_to(tmp_path / "secret")
        (root / "outfile").symlink_to("../secret/key")
        (root / "dangling").symlink_to("nowhere")
        (root / "loop").symlink_to("loop")
        (root / "in").symlink_to("src")
        (root / "hook").symlink_to(".git/config")
        (root / "chain").symlink_to("out")
    return root


@pytest.fixture
def ws(root: Path) -> Workspace:
    return Workspace(root)


# where a path leads ---------------------------------------------------------------------------------------------------


def test_plain_paths_are_inside(ws: Workspace) -> None:
    assert ws.resolve("src/a.py") == ws.root / "src" / "a.py"
    assert ws.resolve("./src//a.py/") == ws.root / "src" / "a.py"
    assert ws.resolve(".") == ws.root
    assert ws.resolve("new/folder/ü.txt") == ws.root / "new" / "folder" / "ü.txt"
    assert ws.relative(ws.resolve("src/a.py")) == "src/a.py"


def test_an_absolute_path_inside_is_taken(ws: Workspace) -> None:
    assert ws.resolve(f"{ws.root.as_posix()}/src/a.py") == ws.root / "src" / "a.py"
    assert ws.resolve(ws.root.as_posix()) == ws.root


@posix
def test_an_absolute_path_through_the_name_that_was_given_is_taken(tmp_path: Path, root: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert Workspace(tmp_path / "alias").resolve(f"{tmp_path}/alias/src/a.py") == root.resolve() / "src" / "a.py"


TRICKS = {
    "parent": ["..", "../secret/key", "src/../../secret/key", "src/..", "./../work/notes.txt"],
    "absolute": ["/etc/passwd", "/", "//etc/passwd", "/usr/../etc"],
    "home": ["~", "~/x", "~root/.ssh/id_rsa", "./~", "./~/x"],
    "control": ["a\0b", "a\nb", "a\tb", "\x7f", "a\x85b", "a\u202etxt.exe", "\ud800"],
    "windows": [
        *("C:\\Windows", "C:/Windows", "c:x", "\\\\server\\share", "//server/share", "src\\a.py", "..\\x"),
        *("CON", "nul", "src/NUL.txt", "com1", "LPT9.log", "aux .txt", "a.", "a ", "dir./x", "notes.txt::$DATA", "a:b"),
    ],
    "git": [".GIT/config", ".gIt", ".g\u200cit/config"],
    "long": ["x" * 256, "ü" * 128, "d/" * 2500],
    "empty": [""],
}


@pytest.mark.parametrize("path", [path for group in TRICKS.values() for path in group])
def test_a_trick_is_refused_naming_path_and_root(ws: Workspace, path: str) -> None:
    with pytest.raises(Denied) as caught:
        ws.resolve(path)
    assert str(ws.root) in caught.value.message
    assert repr(path[:200]) in caught.value.message


def test_a_refusal_says_what_is_wrong(ws: Workspace) -> None:
    wrong = {"a/../b": "goes up", "~/x": "'~'", "/etc": "absolute", "C:/x": "Windows", "a\0": "U+0000", "nul": "device"}
    for path, said in wrong.items():
        with pytest.raises(Denied) as caught:
            ws.resolve(path)
        assert said in caught.value.message


@pytest.mark.parametrize(
    "path", ["a..b", "..a/b", "...a", ".hidden", "a b.txt", "~x~.txt"[1:], "console.log", "日本語.md", "a'b\""]
)
def test_odd_but_harmless_names_are_taken(ws: Workspace, path: str) -> None:
    ws.write_atomic(path, b"1")
    assert ws.read_bytes(path) == b"1"
    assert path in set(ws.files())


@posix
@pytest.mark.parametrize(
    "path", ["out", "out/key", "outfile", "chain", "chain/key", "dangling", "dangling/x", "loop", "hook", "in/../in"]
)
def test_a_link_that_leads_out_nowhere_or_into_git_is_refused(ws: Workspace, path: str) -> None:
    for use in (ws.resolve, ws.stat, ws.open, ws.read_bytes, ws.sha256, ws.delete, ws.identity, ws.entries):
        with pytest.raises(Denied):
            use(path)
    with pytest.raises(Denied):
        ws.write_atomic(path, b"x")
    with pytest.raises(Denied):
        ws.copy(path, "copied")
    with pytest.raises(Denied):
        ws.move("notes.txt", path)


@posix
def test_a_link_inside_is_followed(ws: Workspace) -> None:
    assert ws.resolve("in/a.py") == ws.root / "src" / "a.py"
    assert ws.real_name("in/a.py") == "src/a.py"
    assert ws.read_bytes("in/a.py") == b"x = 1\n"


@posix
def test_deleting_and_moving_a_link_leaves_what_it_names(ws: Workspace) -> None:
    ws.move("in", "also")
    assert (ws.root / "also").is_symlink()
    ws.delete("also")
    assert not os.path.lexists(ws.root / "also")
    assert (ws.root / "src" / "a.py").exists()


@posix
def test_a_folder_swapped_for_a_link_after_the_check_is_refused(root: Path) -> None:
    class Swapping(Workspace):
        """Resolves, then someone swaps the folder for a link to the secret."""

        def resolve(self, path: str) -> Path:
            real = super().resolve(path)
            if (root / "src").is_dir() and not (root / "src").is_symlink():
                shutil.rmtree(root / "src")
                (root / "src").symlink_to(root.parent / "secret")
            return real

    ws = Swapping(root)
    with pytest.raises(Denied, match="became a link"):
        ws.open("src/key")
    os.unlink(root / "src")
    (root / "src").mkdir()
    with pytest.raises(Denied, match="became a link"):
        ws.write_atomic("src/key", b"overwritten")
    assert (root.parent / "secret" / "key").read_text() == "SECRET"


@posix
def test_a_file_swapped_for_a_link_after_the_check_is_refused(root: Path) -> None:
    class Swapping(Workspace):
        def resolve(self, path: str) -> Path:
            real = super().resolve(path)
            os.unlink(root / "notes.txt")
            (root / "notes.txt").symlink_to(root.parent / "secret" / "key")
            return real

    with pytest.raises(Denied, match="became a link"):
        Swapping(root).open("notes.txt")


@posix
def test_a_link_swapped_in_at_the_last_moment_is_not_opened(root: Path) -> None:
    folder = os.open(root, os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links"):
        paths.Entry(path="outfile", name="outfile", folder=folder).open()
    os.close(folder)


@posix
@pytest.mark.slow
def test_no_race_with_swapped_links_ever_reads_outside(root: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        spare = root / "spare"
        while not stop.is_set():
            os.rename(root / "src", spare)
            os.symlink(root.parent / "secret", root / "src")
            os.unlink(root / "src")
            os.rename(spare, root / "src")

    (root / "src" / "key").write_text("mine")
    ws = Workspace(root)
    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < 1.5 or (not seen and now < 30):
        try:
            seen.add(ws.read_bytes("src/key"))
        except AgentdError:
            continue
    stop.set()
    swapper.join()
    assert seen == {b"mine"}


PIECES = st.sampled_from(
    [
        *("..", ".", "", "~", "src", "out", "in", "loop", "dangling", "a.py", "outfile", "key", "secret", "C:", "con"),
        *("\\", "\0"),
    ]
)
PATHS = st.one_of(
    st.text(max_size=40),
    st.lists(PIECES, max_size=6).map("/".join),
    st.lists(PIECES, max_size=6).map(lambda parts: "/" + "/".join(parts)),
    st.lists(PIECES, max_size=6).map("\\".join),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    top = tmp_path_factory.mktemp("fuzz")
    root = top / "work"
    (root / "src").mkdir(parents=True)
    (top / "secret").mkdir()
    (top / "secret" / "key").write_text("SECRET")
    if os.name != "nt":
        (root / "out").symlink_to("../secret")
        (root / "in").symlink_to("src")
        (root / "outfile").symlink_to(top / "secret" / "key")
        (root / "loop").symlink_to("loop")
        (root / "dangling").symlink_to("../gone")
    return Workspace(root)


@given(path=PATHS)
@settings(max_examples=400, deadline=None)
def test_nothing_ever_resolves_outside(shared: Workspace, path: str) -> None:
    try:
        real = shared.resolve(path)
    except Denied:
        return
    assert Path(os.path.realpath(real)).is_relative_to(shared.root)
    assert shared.resolve(normal(path)) == real
    assert ".." not in real.parts


@given(path=PATHS)
@settings(max_examples=200, deadline=None)
def test_nothing_is_ever_written_outside(shared: Workspace, path: str) -> None:
    try:
        shared.write_atomic(path, b"new")
    except (Denied, ToolFailed):
        pass
    else:
        shared.delete(path)
    assert sorted(os.listdir(shared.root.parent)) == ["secret", "work"]
    assert os.listdir(shared.root.parent / "secret") == ["key"]
    assert (shared.root.parent / "secret" / "key").read_text() == "SECRET"


def test_a_root_must_be_a_folder_with_a_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "gone", tmp_path / "file", Path(tmp_path.anchor), Path("a\0b")):
        with pytest.raises(BadInput) as caught:
            Workspace(root)
        assert caught.value.hint


# reading --------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_what_comes_near(ws: Workspace) -> None:
    with pytest.raises(ToolFailed) as caught:
        ws.read_bytes("note.txt")
    assert "note.txt" in caught.value.message
    assert "notes.txt" in caught.value.hint
    with pytest.raises(ToolFailed) as caught:
        ws.read_bytes("lib/a.py")
    assert "src/a.py" in caught.value.hint


def test_a_file_used_as_a_folder_is_a_clear_error(ws: Workspace) -> None:
    for use in (ws.open, ws.entries):
        with pytest.raises(ToolFailed, match=r"notes\.txt' is a file"):
            use("notes.txt/deeper/x")
    with pytest.raises(ToolFailed, match="is a folder"):
        ws.open("src")
    with pytest.raises(ToolFailed, match=r"notes\.txt' is a file"):
        ws.entries("notes.txt")


def test_more_than_asked_for_is_refused(ws: Workspace) -> None:
    ws.write_atomic("big", b"x" * 1001)
    assert len(ws.read_bytes("big", 1001)) == 1001
    with pytest.raises(ToolFailed, match="1001 bytes, more than 1000"):
        ws.read_bytes("big", 1000)


@posix
def test_a_special_file_is_refused_without_waiting(ws: Workspace) -> None:
    os.mkfifo(ws.root / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(ws.root)  # the path of a socket must be short
    server.bind("sock")
    os.chdir(here)
    started = time.monotonic()
    for name in ("pipe", "sock"):
        with pytest.raises(ToolFailed, match="no regular file"):
            ws.open(name)
        with pytest.raises(ToolFailed, match="no regular file"):
            ws.write_atomic(name, b"x")
        assert ws.sha256(name) is None
    server.close()
    assert time.monotonic() - started < 1
    assert "pipe" not in set(ws.files())


@posix
def test_a_file_without_permission_is_a_clear_error(tmp_path: Path) -> None:
    """In a child that is not root, for which no mode holds."""
    root = tmp_path / "work"
    root.mkdir()
    (root / "closed.txt").write_text("secret")
    (root / "closed.txt").chmod(0)
    (root / "dir").mkdir()
    (root / "dir" / "x").write_text("x")
    (root / "dir").chmod(0)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from agentd.workspace.paths import Workspace\n"
        "from agentd.errors import ToolFailed\n"
        "ws = Workspace(Path(sys.argv[1]))\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "for use in (lambda: ws.read_bytes('closed.txt'), lambda: ws.read_bytes('dir/x'), lambda: ws.entries('dir'),\n"
        "            lambda: ws.write_atomic('new', b'1'), lambda: ws.delete('dir')):\n"
        "    try: print('no error', use())\n"
        "    except ToolFailed as error: print(error.message)\n"
        "print(list(ws.files()))\n"
    )
    folder = tmp_path
    while folder != folder.parent and folder.owner() == root.owner() and "pytest" in str(folder):
        folder.chmod(0o755)
        folder = folder.parent
    root.chmod(0o555)
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code, str(root)], env=env, capture_output=True, text=True, check=False)
    (root / "dir").chmod(0o755)
    assert done.returncode == 0, done.stderr
    first, *rest, files = done.stdout.splitlines()
    assert first == "no permission for closed.txt"
    assert len(rest) == 4
    assert all(line.startswith("no permission for ") for line in rest), rest
    assert files == "['closed.txt']"


# writing --------------------------------------------------------------------------------------------------------------


def test_writing_makes_folders_and_leaves_nothing_else(ws: Workspace) -> None:
    ws.write_atomic("reports/2026/summary.md", b"draft", key="k")
    assert (ws.root / "reports/2026/summary.md").read_bytes() == b"draft"
    assert os.listdir(ws.root / "reports/2026") == ["summary.md"]


@posix
def test_the_mode_is_kept(ws: Workspace) -> None:
    (ws.root / "run.sh").write_text("old")
    (ws.root / "run.sh").chmod(0o750)
    ws.write_atomic("run.sh", b"new")
    assert stat.S_IMODE((ws.root / "run.sh").stat().st_mode) == 0o750
    ws.copy("run.sh", "copy.sh")
    assert stat.S_IMODE((ws.root / "copy.sh").stat().st_mode) == 0o750


@posix
def test_a_read_only_file_is_left_alone(ws: Workspace) -> None:
    (ws.root / "notes.txt").chmod(0o444)
    with pytest.raises(ToolFailed, match="read-only"):
        ws.write_atomic("notes.txt", b"new")
    with pytest.raises(ToolFailed, match="read-only"):
        ws.delete("notes.txt")
    assert (ws.root / "notes.txt").read_text() == "hello\n"


def test_a_folder_is_never_written_over(ws: Workspace) -> None:
    for path in ("src", "."):
        with pytest.raises(ToolFailed):
            ws.write_atomic(path, b"x")
    assert ws.read_bytes("src/a.py") == b"x = 1\n"


@posix
def test_a_reader_never_sees_half_a_file(ws: Workspace) -> None:
    sizes = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            sizes.add((ws.root / "whole").read_bytes().count(b"x"))

    ws.write_atomic("whole", b"x" * 3_000_000)
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        ws.write_atomic("whole", b"x" * 3_000_000)
    stop.set()
    reader.join()
    assert sizes <= {3_000_000}


@posix
@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_crash_at_any_moment_leaves_old_or_new_and_a_rerun_cleans_up(ws: Workspace, moment: str) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from agentd.workspace import paths\n"
        "moment = sys.argv[2]\n"
        "def die(*a, **k): os._exit(9)\n"
        "if moment == 'write': paths.settle = die\n"
        "elif moment == 'fsync': os.fsync = die\n"
        "else: os.replace = die\n"
        "paths.Workspace(Path(sys.argv[1])).write_atomic('notes.txt', b'new text', key='call-7')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code, str(ws.root), moment], env=env, check=False)
    assert done.returncode == 9
    assert ws.read_bytes("notes.txt") == b"hello\n"
    assert any(name.endswith(".tmp") for name in os.listdir(ws.root))
    assert not any(name.endswith(".tmp") for name in ws.files())
    ws.write_atomic("notes.txt", b"new text", key="call-7")
    assert ws.read_bytes("notes.txt") == b"new text"
    assert not any(name.endswith(".tmp") for name in os.listdir(ws.root))


@posix
def test_a_full_disk_leaves_the_old_file_whole(ws: Workspace) -> None:
    """In a child whose files may not grow beyond 100 kB: the kernel refuses the write as a full disk would."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from agentd.workspace.paths import Workspace\n"
        "from agentd.errors import ToolFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "ws = Workspace(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: ws.write_atomic('notes.txt', b'x' * 1_000_000)\n"
        "except ToolFailed as error: print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ws.root)], env=env, capture_output=True, text=True, check=True
    )
    assert "no space left to write notes.txt" in done.stdout
    assert "hint: what stood there is unchanged" in done.stdout
    assert ws.read_bytes("notes.txt") == b"hello\n"
    assert not any(name.endswith(".tmp") for name in os.listdir(ws.root))


@posix
def test_a_really_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk")
    try:
        ws = Workspace(disk)
        ws.write_atomic("a.txt", b"old")
        with pytest.raises(ToolFailed, match="no space left"):
            ws.write_atomic("a.txt", b"x" * 1_000_000)
        with pytest.raises(ToolFailed, match="no space left"):
            ws.write_atomic("deep/b.txt", b"x" * 1_000_000)
        assert ws.read_bytes("a.txt") == b"old"
        assert not any(name.endswith(".tmp") for name in os.listdir(disk))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# copy, move, delete ---------------------------------------------------------------------------------------------------


def test_copies_of_files_and_folders_are_the_same(ws: Workspace) -> None:
    ws.write_atomic("src/deep/b.bin", bytes(range(256)))
    assert ws.copy("notes.txt", "x/y.txt") == 6
    assert ws.copy("src", "again/src") == 6 + 256
    assert ws.same("src", "again/src")
    assert ws.same("notes.txt", "x/y.txt")
    assert not ws.same("src", "x")
    assert not ws.same("notes.txt", "src/a.py")
    assert not ws.same("notes.txt", "gone")


@posix
def test_a_copied_folder_keeps_its_links_and_never_what_they_name(ws: Workspace) -> None:
    (ws.root / "src" / "leak").symlink_to(ws.root.parent / "secret" / "key")
    ws.copy("src", "copied")
    assert os.readlink(ws.root / "copied" / "leak") == str(ws.root.parent / "secret" / "key")
    with pytest.raises(Denied):
        ws.read_bytes("copied/leak")


def test_nothing_is_copied_or_moved_over_something_or_into_itself(ws: Workspace) -> None:
    for change in (ws.copy, ws.move):
        with pytest.raises(ToolFailed, match="exists already"):
            change("notes.txt", "src/a.py")
        with pytest.raises(ToolFailed, match="lies in it"):
            change("src", "src/inner")
        with pytest.raises(ToolFailed, match="lies in it"):
            change(".", "inner")
        with pytest.raises(ToolFailed, match="there is no gone"):
            change("gone", "x")
    assert sorted(name for name in os.listdir(ws.root / "src")) == ["a.py"]


@posix
def test_a_copy_that_fails_leaves_nothing(ws: Workspace) -> None:
    os.mkfifo(ws.root / "src" / "pipe")
    with pytest.raises(ToolFailed, match="no regular file"):
        ws.copy("src", "copied")
    assert not (ws.root / "copied").exists()
    assert not any(name.endswith(".tmp") for name in os.listdir(ws.root))


def test_a_move_keeps_the_identity_and_a_new_file_has_another(ws: Workspace) -> None:
    before = ws.identity("notes.txt")
    assert before is not None
    ws.move("notes.txt", "sub/renamed.txt")
    assert ws.identity("notes.txt") is None
    assert ws.identity("sub/renamed.txt") == before
    ws.write_atomic("notes.txt", b"hello\n")
    assert ws.identity("notes.txt") not in (None, before)


def test_a_folder_is_deleted_with_all_in_it(ws: Workspace) -> None:
    ws.write_atomic("build/x/y", b"1")
    ws.delete("build")
    assert not (ws.root / "build").exists()
    with pytest.raises(ToolFailed, match="there is no build"):
        ws.delete("build")


def test_the_root_and_repositories_are_never_deleted(ws: Workspace) -> None:
    ws.write_atomic("lib/nested/.git", b"gitdir: elsewhere")
    for path in (".", ws.root.as_posix()):
        with pytest.raises((ToolFailed, Denied)):
            ws.delete(path)
    with pytest.raises(Denied, match="git repository"):
        ws.delete("lib")
    assert (ws.root / "lib/nested/.git").exists()


@posix
def test_a_folder_that_cannot_be_emptied_stays_where_it_is(ws: Workspace) -> None:
    """In a child in which removing files fails, as it does in a folder of someone else."""
    code = (
        "import shutil, sys\n"
        "from pathlib import Path\n"
        "from agentd.errors import ToolFailed\n"
        "from agentd.workspace.paths import Workspace\n"
        "def refuse(*a, **k): raise PermissionError(13, 'no')\n"
        "shutil.rmtree = refuse\n"
        "try: Workspace(Path(sys.argv[1])).delete('src')\n"
        "except ToolFailed as error: print(error.message)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ws.root)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "no permission for src"
    assert ws.read_bytes("src/a.py") == b"x = 1\n"
    assert not any(name.endswith(".tmp") for name in os.listdir(ws.root))


@posix
def test_what_a_broken_off_deletion_left_is_swept(ws: Workspace) -> None:
    code = (
        "import os, shutil, sys\n"
        "from pathlib import Path\n"
        "from agentd.workspace.paths import Workspace\n"
        "shutil.rmtree = lambda *a, **k: os._exit(9)\n"
        "Workspace(Path(sys.argv[1])).delete('src', key='call-3')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run([sys.executable, "-c", code, str(ws.root)], env=env, check=False).returncode == 9
    assert ws.stat("src") is None
    assert any(name.endswith(".tmp") for name in os.listdir(ws.root))
    ws.sweep("src", "call-3")
    assert not any(name.endswith(".tmp") for name in os.listdir(ws.root))


# platforms without folder descriptors ---------------------------------------------------------------------------------


def test_all_works_without_folder_descriptors(root: Path) -> None:
    """As on Windows, where paths are all there is; in a child, so that nothing is changed here."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from agentd.workspace import paths\n"
        "paths._HAS_DIR_FD = False\n"
        "ws = paths.Workspace(Path(sys.argv[1]))\n"
        "ws.write_atomic('n/a.txt', b'1'); ws.write_atomic('n/a.txt', b'22'); ws.copy('n', 'm')\n"
        "ws.move('m/a.txt', 'b.txt'); ws.delete('n'); ws.delete('m')\n"
        "print(ws.read_bytes('b.txt'), ws.entries('src'), ws.identity('b.txt') is not None)\n"
        "print(sorted(ws.files()))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code, str(root)], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["b'22' ['a.py'] True", "['b.txt', 'notes.txt', 'src/a.py']"], done.stderr
    assert paths._HAS_DIR_FD or os.name == "nt"
