"""The files that a reference names: `ORG/REPO[:QUANT]`, `ORG/REPO/FILE.gguf` on a hub like Hugging Face, or a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from agentd.backends.download import RemoteFile, Web
from agentd.errors import BadInput, DownloadFailed, NotFound

Choose: TypeAlias = Callable[[Mapping[str, int]], str]
"""Of several quantisations, sizes in bytes by name, the one to take."""

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"({_ID})/({_ID})(?::([A-Za-z0-9._-]{{1,100}})|/(.{{1,500}}\.gguf))?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}\.gguf", re.IGNORECASE)
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_PATH = re.compile(r"[ -\[\]-~]{1,500}")
"""Printable, without a backslash."""
_NO_MODEL = re.compile(r"(?i)(?:^|[-._])(?:mmproj|imatrix|lora|adapter)(?=[-._])")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_PAGES = 20
_MOST_PARTS = 500
_FORMS = "write ORG/REPO, ORG/REPO:Q4_K_M, ORG/REPO/FILE.gguf, or the https:// address of a GGUF file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to fetch: one file, or the parts of one, in their order. `origin` says where it comes from, for people."""

    files: tuple[RemoteFile, ...]
    origin: str

    @property
    def name(self) -> str:
        """The name of the file that is loaded."""
        return self.files[0].name

    @property
    def size(self) -> int | None:
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def select(reference: str, web: Web, hub: str, choose: Choose) -> Selection:
    """What a reference names. Raises `BadInput`, `NotFound`, `DownloadFailed`, and what `choose` raises."""
    reference = reference.strip()
    if re.match(r"(?i)https?://", reference):
        try:
            page = _page(reference, hub)
        except ValueError as error:
            raise BadInput(f"{reference[:200]!r} is no address: {error}", hint=_FORMS) from None
        return _select_url(reference) if page is None else select(page, web, hub, choose)
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise BadInput(f"{reference[:200]!r} names no model to fetch", hint=_FORMS)
    owner, repo, quant, path = found.groups()
    listed = _listed(web, hub, owner, repo)
    groups = _groups(listed)
    if not groups:
        raise NotFound(f"{owner}/{repo} has no GGUF file", hint="look for a repository whose name ends with -GGUF")
    chosen = _named(groups, path) if path else _chosen(groups, quant, choose)
    files = tuple(_remote(hub, owner, repo, each) for each in groups[chosen])
    return Selection(files=files, origin=f"{owner}/{repo}/{chosen}")


def _page(url: str, hub: str) -> str | None:
    """The reference that a page of the hub stands for, as people copy it from a browser."""
    parts, there = urlsplit(url), urlsplit(hub)
    if parts.netloc != there.netloc:
        return None
    names = [unquote(name) for name in parts.path.removeprefix(there.path.rstrip("/")).strip("/").split("/")]
    if len(names) == 2 and not _NAME.fullmatch(names[1]):
        return "/".join(names)
    if len(names) > 4 and names[2:4] in (["blob", "main"], ["resolve", "main"]):
        return "/".join([*names[:2], *names[4:]])
    return None


def _select_url(url: str) -> Selection:
    parts = urlsplit(url)
    name = unquote(parts.path).rpartition("/")[2]
    if parts.username or parts.password:
        raise BadInput("an address with a password is not taken", hint="fetch the file by other means")
    if not _NAME.fullmatch(name):
        raise BadInput(f"{url[:200]!r} does not end with the name of a GGUF file", hint=_FORMS)
    split = _PART.fullmatch(name)
    if split is None:
        return Selection(files=(RemoteFile(url=url, name=name),), origin=_shared(url))
    count = int(split[3])
    if not 1 <= count <= _MOST_PARTS or not parts.path.endswith(name):
        raise BadInput(f"{name} is no part of a file that could be fetched", hint=_FORMS)
    names = [f"{split[1]}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    folder = parts.path.removesuffix(name)
    files = tuple(RemoteFile(url=parts._replace(path=folder + each).geturl(), name=each) for each in names)
    return Selection(files=files, origin=_shared(url))


def _shared(url: str) -> str:
    """What may be logged of an address: its query can be a key to the file."""
    return url.partition("?")[0].partition("#")[0]


def _listed(web: Web, hub: str, owner: str, repo: str) -> list[dict[str, Any]]:
    """Every file of the repository: `path`, `size`, `sha256`."""
    page: str | None = f"{hub.rstrip('/')}/api/models/{owner}/{repo}/tree/main?recursive=true"
    found: list[dict[str, Any]] = []
    for _ in range(_MOST_PAGES):
        try:
            told, page = web.json(page or "")
        except NotFound:
            raise NotFound(f"there is no repository {owner}/{repo} at {hub}", hint="look at its spelling") from None
        if not isinstance(told, list):
            raise DownloadFailed(f"{hub} does not answer as a hub does", hint="see the setting models.hub")
        found += [file for each in told if (file := _file(each)) is not None]
        if page is None or urlsplit(page).netloc != urlsplit(hub).netloc:
            break
    return found


def _file(told: Any) -> dict[str, Any] | None:
    """One entry of the list; None for what is no file, or has a name that could lead elsewhere."""
    if not isinstance(told, dict) or told.get("type") != "file" or not isinstance(told.get("path"), str):
        return None
    path, lfs = told["path"], told.get("lfs")
    size = lfs.get("size") if isinstance(lfs, dict) else told.get("size")
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    if not _NAME.fullmatch(path.rpartition("/")[2]) or not _PATH.fullmatch(path) or ".." in path.split("/"):
        return None
    checked = sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
    return {"path": path, "size": size, "sha256": checked}


def _groups(listed: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The models, each with its parts in their order, by the path of the first; incomplete ones are left out."""
    files = {file["path"]: file for file in listed}
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, file in sorted(files.items()):
        part = _PART.fullmatch(path)
        if _NO_MODEL.search(path.rpartition("/")[2]):
            continue
        if part is None:
            groups[path] = [file]
        elif int(part[2]) == 1 and int(part[3]) <= _MOST_PARTS:
            count = int(part[3])
            names = [f"{part[1]}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
            if all(name in files for name in names):
                groups[path] = [files[name] for name in names]
    return groups


def _named(groups: Mapping[str, Any], path: str) -> str:
    if path in groups:
        return path
    same = [each for each in groups if each.rpartition("/")[2] == path]
    if len(same) == 1:
        return same[0]
    raise NotFound(f"there is no {path!r} there", hint=f"there are {_shown(groups)}")


def _chosen(groups: Mapping[str, Sequence[dict[str, Any]]], quant: str | None, choose: Choose) -> str:
    sizes = {path: sum(file["size"] for file in files) for path, files in groups.items()}
    if quant is None:
        return choose(sizes)
    if quant.lower().endswith(".gguf"):
        return _named(groups, quant)
    pattern = re.compile(rf"(?i)(?:^|[-._/]){re.escape(quant)}(?=[-._/])")
    fitting = [path for path in groups if pattern.search(path)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise BadInput(f"{quant} could be {_shown(fitting)}", hint="name the file: ORG/REPO/FILE.gguf")
    raise NotFound(f"no file there is in {quant}", hint=f"there are {_shown(groups)}")


def _shown(paths: Mapping[str, Any] | Sequence[str]) -> str:
    names = list(paths)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _remote(hub: str, owner: str, repo: str, file: dict[str, Any]) -> RemoteFile:
    path: str = file["path"]
    return RemoteFile(
        url=f"{hub.rstrip('/')}/{owner}/{repo}/resolve/main/{quote(path)}",
        name=path.rpartition("/")[2],
        size=file["size"],
        sha256=file["sha256"],
    )
