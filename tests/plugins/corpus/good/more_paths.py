# {} -> ["a/b", "/a/b", "b", "b", true, "/a", "x", ".", ".", true, ["/a/b", "/a", "/"], "a/b/c", "z", "q.b"]
import os
from pathlib import PurePosixPath


def run():
    return [os.path.join("a", "b"), str(PurePosixPath("/a") / "b"), os.path.relpath("/a/b", "/a"), os.path.normpath("a/../b"), os.path.isabs("/a"), os.path.commonpath(["/a/b", "/a/c"]), os.fspath("x"), os.extsep, os.curdir, PurePosixPath("a/b.py").match("*.py"), [str(x) for x in PurePosixPath("/a/b/c").parents], PurePosixPath("a").joinpath("b", "c").as_posix(), PurePosixPath("a/b").with_name("z").name, PurePosixPath("a.b").with_stem("q").name]
