# {} -> ["a/b", ["a", ".txt"], [".tar", ".gz"], "c.tar", "b", "/a/b/c.tar.x", ["/", "a", "b", "c.tar.gz"], "a/b", "/", "b", true, "\n", "b/c.tar.gz", true, "a/b", "b"]
import os
import os.path
from pathlib import Path, PurePosixPath
import posixpath
import fnmatch


def run():
    p = PurePosixPath("/a/b/c.tar.gz")
    return [os.path.join("a", "b"), os.path.splitext("a.txt"), p.suffixes, p.stem, p.parent.name, str(p.with_suffix(".x")), p.parts, str(Path("a") / "b"), os.sep, os.path.basename("/a/b"), fnmatch.fnmatch("a.py", "*.py"), os.linesep, str(p.relative_to("/a")), p.is_absolute(), posixpath.join("a", "b"), os.path.relpath("/a/b", "/a")]
