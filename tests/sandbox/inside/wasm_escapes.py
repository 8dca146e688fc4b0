"""Ways out of WebAssembly in plain Python, with no language layer: each returns what it got hold of, or nothing.

Runs inside, after the names of `plain_wasm.py`: what is not at hand there cannot be imported.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Target = dict[str, Any]
wit_world: Any = importlib.import_module("wit_world")
ESCAPES: dict[str, Callable[[Target], object]] = {}


def escape(way: Callable[[Target], object]) -> Callable[[Target], object]:
    ESCAPES[way.__name__] = way
    return way


def attempt(name: str, to: Target) -> str:
    try:
        got = ESCAPES[name](to)
    except BaseException as error:
        return "" if not isinstance(error, AssertionError) else repr(error)
    return "" if got in (None, False) else repr(got)[:300]


# files ----------------------------------------------------------------------------------------------------------------


@escape
def read_canary(to: Target) -> object:
    return open(to["file"]).read()


@escape
def read_canary_by_number(to: Target) -> object:
    return os.read(os.open(to["file"], os.O_RDONLY), 100)


@escape
def read_canary_upwards(to: Target) -> object:
    return open("../" * 30 + to["file"].lstrip("/")).read()


@escape
def read_canary_from_the_root(to: Target) -> object:
    return open(to["file"].lstrip("/"), opener=lambda name, flags: os.open(name, flags, dir_fd=3)).read()


@escape
def read_passwords(to: Target) -> object:
    return open("/etc/passwd").read()


@escape
def read_the_component(to: Target) -> object:
    return len(open(to["component"], "rb").read())


@escape
def read_modules(to: Target) -> object:
    return open(os.__file__).read(10)


@escape
def look_at_proc(to: Target) -> object:
    return open("/proc/self/environ").read()


@escape
def list_folder(to: Target) -> object:
    return os.listdir(to["folder"])


@escape
def list_root(to: Target) -> object:
    return os.listdir("/")


@escape
def list_here(to: Target) -> object:
    return [entry.name for entry in os.scandir(".")]


@escape
def walk(to: Target) -> object:
    return next(os.walk("/"))[1:]


@escape
def stat_canary(to: Target) -> object:
    return os.stat(to["file"]).st_size


@escape
def exists(to: Target) -> object:
    return os.path.exists(to["file"])


@escape
def create(to: Target) -> object:
    return open(to["folder"] + "/new", "w").write("x")


@escape
def create_here(to: Target) -> object:
    return open("agentd-escape", "w").write("x")


@escape
def make_folder(to: Target) -> object:
    return os.mkdir(to["folder"] + "/new") or "made"


@escape
def make_link(to: Target) -> object:
    return os.symlink(to["file"], to["folder"] + "/new") or "made"


@escape
def rename(to: Target) -> object:
    return os.rename(to["file"], to["folder"] + "/new") or "renamed"


@escape
def unlink(to: Target) -> object:
    return os.unlink(to["file"]) or "gone"


@escape
def truncate(to: Target) -> object:
    return os.truncate(to["file"], 0) or "cut"


@escape
def change_time(to: Target) -> object:
    return os.utime(to["file"], (0, 0)) or "changed"


@escape
def import_from_disk(to: Target) -> object:
    sys.path.insert(0, to["folder"])
    importlib.invalidate_caches()
    return importlib.import_module("planted").SECRET


@escape
def open_descriptors(to: Target) -> object:
    found = []
    for number in range(64):
        try:
            found.append((number, os.fstat(number).st_size))
        except OSError:
            continue
    return [each for each in found if each[0] > 2] or None


@escape
def read_what_the_daemon_writes(to: Target) -> object:
    return os.read(0, 1)


@escape
def write_to_the_line(to: Target) -> object:
    return os.write(1, b"s\0\0\0\2{}")


@escape
def write_to_the_log(to: Target) -> object:
    return os.write(2, b"told")


# what it may know -----------------------------------------------------------------------------------------------------


@escape
def environment(to: Target) -> object:
    return dict(os.environ) or None


@escape
def arguments(to: Target) -> object:
    return [word for word in sys.argv if word] or None


@escape
def paths_of_the_machine(to: Target) -> object:
    """Of the one where the component was built, too."""
    known = (to["home"], to["folder"], "site-packages", "/work", "/home", "/root", "Users")
    seen = [*sys.path, sys.prefix, sys.executable or "", os.__file__, repr(sys.flags), repr(sys.modules)]
    return [text[:100] for text in seen if any(part in text for part in known)] or None


@escape
def name_of_the_machine(to: Target) -> object:
    name = os.uname().nodename
    return name if name == to["node"] else None


@escape
def user(to: Target) -> object:
    return os.getlogin()


@escape
def randomness(to: Target) -> object:
    """What a secret could be made of."""
    return os.urandom(16) != bytes(16)


# network --------------------------------------------------------------------------------------------------------------


@escape
def tcp(to: Target) -> object:
    socket = importlib.import_module("socket")
    return socket.create_connection(("127.0.0.1", to["tcp"]), timeout=1)


@escape
def tcp_below(to: Target) -> object:
    socket = importlib.import_module("_socket")
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", to["tcp"])) or "connected"


@escape
def http(to: Target) -> object:
    return importlib.import_module("urllib.request").urlopen(f"http://127.0.0.1:{to['tcp']}/", timeout=1)


@escape
def resolve(to: Target) -> object:
    return importlib.import_module("_socket").getaddrinfo("localhost", 80)


# processes ------------------------------------------------------------------------------------------------------------


@escape
def fork(to: Target) -> object:
    return os.fork()  # type: ignore[attr-defined, unused-ignore]


@escape
def shell(to: Target) -> object:
    return os.system("true") == 0


@escape
def execute(to: Target) -> object:
    return os.execv("/bin/true", ["true"])


@escape
def spawn(to: Target) -> object:
    return os.posix_spawn("/bin/true", ["true"], {})


@escape
def subprocess(to: Target) -> object:
    return importlib.import_module("_posixsubprocess")


@escape
def signal_the_daemon(to: Target) -> object:
    return os.kill(to["pid"], 0) or "heard"


@escape
def end_the_process(to: Target) -> object:
    os._exit(0)


@escape
def abort(to: Target) -> object:
    os.abort()


@escape
def thread(to: Target) -> object:
    threading.Thread(target=int, daemon=True).start()
    return "started"


@escape
def native_code(to: Target) -> object:
    return importlib.import_module("_ctypes").dlopen


@escape
def load_library(to: Target) -> object:
    machinery: Any = importlib.import_module("_imp")
    spec = type("Spec", (), {"name": "x", "origin": to["file"]})()
    return machinery.create_dynamic(spec)


@escape
def memory_of_others(to: Target) -> object:
    """Addresses of WebAssembly begin anew: none is one of the host."""
    mmap = importlib.import_module("mmap")
    return len(mmap.mmap(os.open(to["file"], os.O_RDONLY), 1))


# bombs: held when they end, or are ended, within their limits ---------------------------------------------------------


@escape
def memory_at_once(to: Target) -> object:
    return len(bytearray(3 * to["memory_mb"] << 20))


@escape
def memory_in_pieces(to: Target) -> object:
    return len([bytearray(1 << 20) for _ in range(3 * to["memory_mb"])])


@escape
def memory_doubled(to: Target) -> object:
    text = "x"
    while len(text) < 3 * to["memory_mb"] << 20:
        text += text
    return len(text)


@escape
def memory_of_small_things(to: Target) -> object:
    kept: Any = None
    for number in range(to["memory_mb"] << 16):
        kept = (kept, number)
    return "kept"


@escape
def loop(to: Target) -> object:
    while True:
        pass


@escape
def loop_that_catches(to: Target) -> object:
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


@escape
def loop_in_c(to: Target) -> object:
    return sum(range(10**12))


@escape
def power(to: Target) -> object:
    return len(str((7**1_000_000) ** 1_000))


@escape
def backtracking(to: Target) -> object:
    return bool(re.match(r"(a+)+$", "a" * 60 + "b"))


@escape
def sleep(to: Target) -> object:
    time.sleep(60)
    return "slept"


@escape
def wait_for_nobody(to: Target) -> object:
    lock = threading.Lock()
    return lock.acquire() and lock.acquire()


@escape
def stack_without_end(to: Target) -> object:
    sys.setrecursionlimit(1 << 30)

    def deeper(value: object) -> object:
        return deeper([value])

    return deeper(0)


@escape
def stack_of_c_without_end(to: Target) -> object:
    deep: list[Any] = []
    for _ in range(300_000):
        deep = [deep]
    return len(repr(deep))


@escape
def collect_without_end(to: Target) -> object:
    class Again:
        def __del__(self) -> None:
            Again()

    Again()
    while True:
        gc.collect()


# the line -------------------------------------------------------------------------------------------------------------


@escape
def ask_without_end(to: Target) -> object:
    while True:
        wit_world.ask('{"nonce": "%s", "ask": "files.exists", "args": {}}' % to.get("nonce", ""))  # noqa: UP031


@escape
def ask_garbage(to: Target) -> object:
    return wit_world.ask("\x00 no JSON")


@escape
def ask_too_much(to: Target) -> object:
    return wit_world.ask("x" * (8 << 20))


@escape
def ask_deeply(to: Target) -> object:
    return wit_world.ask("[" * 100_000)


@escape
def print_without_end(to: Target) -> object:
    while True:
        print("x" * 100_000)


@escape
def answer_too_much(to: Target) -> object:
    raise SystemExit("x" * (8 << 20))
