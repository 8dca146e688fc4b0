"""Files that agentd must not use: damaged, newer, foreign, read-only; they stay as they are."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from agentd.errors import StoreError
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.outputs import Outputs
from tests.store.conftest import OpenDatabase, StillClock, python

KILLED = """
import os, pathlib, signal, sys
from agentd.clock import SystemClock
from agentd.store.audit import Audit
from agentd.store.db import Database
db = Database(pathlib.Path(sys.argv[1]), clock=SystemClock())
audit = Audit(db, SystemClock())
for number in range(int(sys.argv[2])):
    audit.record("test", "t", {"number": number})
os.kill(os.getpid(), signal.SIGKILL)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the index of the write-ahead log, which holds nothing of its own."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def refused(path: Path, clock: StillClock, match: str) -> StoreError:
    """The error of opening, which must leave every byte as it was."""
    before = contents(path.parent)
    with pytest.raises(StoreError, match=match) as caught:
        Database(path, clock=clock)
    after = contents(path.parent)
    if not before.get("agentd.db-wal"):
        assert after.pop("agentd.db-wal", b"") == b""
        before.pop("agentd.db-wal", None)
    assert after == before
    assert caught.value.hint
    return caught.value


def fill(db: Database, clock: StillClock) -> None:
    audit, outputs = Audit(db, clock), Outputs(db, clock)
    rng = random.Random(5)
    with db.transaction():
        for number in range(300):
            audit.record("tool.finished", f"task{number % 7}", {"number": number, "noise": rng.random()})
        outputs.put("task1", "".join(chr(rng.randrange(32, 126)) for _ in range(40_000)))


@pytest.fixture
def filled(open_db: OpenDatabase, clock: StillClock, path: Path) -> Path:
    """A sound, closed database of some 50 pages."""
    db = open_db()
    fill(db, clock)
    db.close()
    assert path.stat().st_size > 40 * 4096
    return path


# damage ---------------------------------------------------------------------------------------------------------------


def flips(size: int, number: int, seed: int) -> Iterator[tuple[int, int]]:
    rng = random.Random(seed)
    for _ in range(number):
        yield rng.randrange(size), 1 << rng.randrange(8)


def noticed(path: Path, clock: StillClock, offset: int, bit: int) -> bool:
    """Whether opening notices one flipped bit; the file is sound again afterwards."""
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)
    said = ""
    try:
        Database(path, clock=clock).close()
    except StoreError as error:
        said = error.message
    untouched = path.read_bytes() == data
    data[offset] ^= bit
    path.write_bytes(data)
    for name in ("agentd.db-wal", "agentd.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    return "damaged" in said and untouched


def test_every_flipped_bit_is_noticed(filled: Path, clock: StillClock) -> None:
    size = filled.stat().st_size
    missed = [flip for flip in flips(size, 60, seed=1) if not noticed(filled, clock, *flip)]
    assert missed == []


def test_every_flipped_bit_of_the_header_is_noticed(filled: Path, clock: StillClock) -> None:
    # One of them says how many bytes at the end of a page are for the checksum: without it nothing is checked.
    missed = [offset for offset in range(100) if not noticed(filled, clock, offset, 1 << offset % 8)]
    missed += [offset for offset in (20,) for bit in range(8) if not noticed(filled, clock, offset, 1 << bit)]
    assert missed == []


@pytest.mark.slow
def test_each_of_a_thousand_flipped_bits_is_noticed(filled: Path, clock: StillClock) -> None:
    size = filled.stat().st_size
    missed = [flip for flip in flips(size, 1000, seed=2) if not noticed(filled, clock, *flip)]
    assert missed == []


def test_a_sound_file_opens(filled: Path, clock: StillClock) -> None:
    """Else the tests above would prove nothing."""
    db = Database(filled, clock=clock)
    assert Audit(db, clock).verify().count == 300
    db.close()


def test_damage_that_appears_while_it_runs_is_noticed(open_db: OpenDatabase, filled: Path, clock: StillClock) -> None:
    db = open_db()
    with filled.open("r+b") as file:  # another program
        for page in range(3, filled.stat().st_size // 4096):
            file.seek(page * 4096 + 100)
            byte = file.read(1)
            file.seek(page * 4096 + 100)
            file.write(bytes([byte[0] ^ 1]))
    db.connection().execute("PRAGMA cache_size = 1")
    with pytest.raises(StoreError, match="checksum"):
        Audit(db, clock).verify()
    with pytest.raises(StoreError, match="checksum"):
        db.rows("SELECT * FROM outputs")


def test_a_damaged_file_keeps_its_write_ahead_log(path: Path, clock: StillClock) -> None:
    assert python(KILLED, path, 20, check=False).returncode == -9
    wal = path.with_name("agentd.db-wal")
    assert wal.stat().st_size > 0
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    refused(path, clock, "damaged")
    data[0] ^= 1
    path.write_bytes(data)
    db = Database(path, clock=clock)
    assert Audit(db, clock).verify().count == 20
    db.close()


@pytest.mark.parametrize("left", [None, b""])
def test_a_write_ahead_log_without_its_file_is_kept(path: Path, clock: StillClock, left: bytes | None) -> None:
    assert python(KILLED, path, 5, check=False).returncode == -9
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    refused(path, clock, "agentd.db-wal holds changes")


@pytest.mark.parametrize("size", [1, 50, 4095, 4096, 3 * 4096 + 17, 20 * 4096])
def test_a_file_cut_short_is_refused(filled: Path, clock: StillClock, size: int) -> None:
    os.truncate(filled, size)
    refused(filled, clock, "damaged")


def test_what_is_no_database_is_refused(path: Path, clock: StillClock) -> None:
    path.parent.mkdir()
    path.write_text("My diary\n" * 1000)
    refused(path, clock, "damaged: .*not a database")


def test_a_folder_in_its_place_is_refused(path: Path, clock: StillClock) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"agentd\.db cannot be written"):
        Database(path, clock=clock)


def test_an_empty_file_is_a_new_database(path: Path, open_db: OpenDatabase) -> None:
    path.parent.mkdir()
    path.touch()
    assert open_db().row("SELECT count(*) AS n FROM audit") == {"n": 0}


# not ours, or newer ---------------------------------------------------------------------------------------------------


def test_a_database_of_another_program_is_refused(path: Path, clock: StillClock) -> None:
    path.parent.mkdir()
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE photos (name)")
    other.close()
    refused(path, clock, "no checksums")


def test_a_checksummed_database_of_another_program_is_refused(
    filled: Path, clock: StillClock, outside: Callable[[], apsw.Connection]
) -> None:
    outside().pragma("application_id", 1234)
    outside().close()
    refused(filled, clock, "not a database of agentd")


def test_a_newer_schema_is_refused(filled: Path, clock: StillClock, outside: Callable[[], apsw.Connection]) -> None:
    connection = outside()
    connection.execute("INSERT INTO migrations VALUES (9000, '9000_future.sql', 1.0)")
    connection.close()
    error = refused(filled, clock, r"another version of agentd: it has 9000_future\.sql")
    assert "newest agentd" in error.hint


def test_a_newer_schema_version_is_refused(
    filled: Path, clock: StillClock, outside: Callable[[], apsw.Connection]
) -> None:
    connection = outside()
    connection.pragma("user_version", 9000)
    connection.close()
    refused(filled, clock, "another version of agentd: it has schema version 9000")


# not writable ---------------------------------------------------------------------------------------------------------

OPEN = """
import ctypes, os, pathlib, sys
from agentd.clock import SystemClock
from agentd.errors import StoreError
from agentd.store.db import Database
if os.geteuid() == 0:  # for root modes say nothing until it gives up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc, words = ctypes.CDLL(None, use_errno=True), ctypes.c_uint32 * 6
    header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), words()
    assert libc.capget(header, held) == 0
    held[0] &= ~0b110
    assert libc.capset(header, held) == 0
try:
    Database(pathlib.Path(sys.argv[1]), clock=SystemClock()).close()
except StoreError as error:
    print(error)
"""


modes = pytest.mark.skipif(not sys.platform.startswith("linux") and os.geteuid() == 0, reason="modes do not bind root")


@modes
@pytest.mark.parametrize("what", ["file", "folder", "both"])
def test_read_only(filled: Path, what: str) -> None:
    folder = filled.parent
    filled.chmod(0o444 if what != "folder" else 0o600)
    folder.chmod(0o555 if what != "file" else 0o700)
    before = contents(folder)
    said = python(OPEN, filled).stdout
    folder.chmod(0o700)
    assert f"the database {filled} cannot be written" in said
    assert "hint: the user who runs agentd must be able to write" in said
    after = contents(folder)
    assert after.pop("agentd.db-wal", b"") == b""
    assert after == before


@modes
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    said = python(OPEN, tmp_path / "state" / "agentd.db").stdout
    tmp_path.chmod(0o700)
    assert "cannot be reached" in said
    assert "Permission denied" in said
