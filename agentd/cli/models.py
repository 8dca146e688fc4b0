"""`model`: which models there are; fetch, load, measure and remove them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command
from agentd.cli.progress import ProgressLine
from agentd.cli.reach import ensure_daemon
from agentd.errors import BadInput

_PATIENCE = 3600.0
"""Seconds for a load or a measurement; a big model comes slowly from a slow disk."""

group = Group("model", help="The models: which there are, which are in memory; fetch, load, measure, remove.")
_name = click.argument("name", metavar="NAME")


@command("ls")
def ls(invocation: Invocation) -> None:
    """List the models: for which roles, whether they are here and in memory, how big, and how fast they should be.

    SPEED is computed, in tokens a second, from the bytes that one token reads; `model bench` measures.
    """
    found = Client(endpoint(invocation)).get("/api/models")
    if invocation.json:
        output.data_json(found)
        return
    header = ("MODEL", "ROLES", "STATE", "SIZE", "FORMAT", "CONTEXT", "SPEED", "FILE")
    output.data(output.table([_row(model) for model in found["models"]], header))
    if found["problem"]:
        output.note(f"{output.paint('error:', 'red', sys.stderr)} {found['problem']['message']}")
        output.note("hint: the catalog of before is in force until that is put right")


@command("show")
@_name
def show(invocation: Invocation, name: str) -> None:
    """What is known of a model: its entry, what its file says, and how it is or would be loaded.

    NAME is a name of the catalog, SERVER/MODEL-ID, or a GGUF file.
    """
    found = Client(endpoint(invocation)).get(f"/api/models/{quote(model_named(name), safe='/')}")
    if invocation.json:
        output.data_json(found)
    else:
        lines = list(_facts(found))
        width = max(len(title) for title, _ in lines)
        output.data("\n".join(f"{title:{width}}  {output.one_line(str(value))}" for title, value in lines))


@command("pull")
@click.argument("reference")
@click.option("--sha256", metavar="HEX", help="The checksum that the file must have; a hub's is checked without it.")
@click.option("--name", metavar="NAME", help="The name in the catalog (else made from the file's).")
def pull(invocation: Invocation, reference: str, sha256: str | None, name: str | None) -> None:
    """Fetch a model and enter it in the catalog.

    REFERENCE is ORG/REPO on Hugging Face (the quantisation is chosen by what fits this machine), ORG/REPO:Q4_K_M,
    ORG/REPO/FILE.gguf, or the https:// address of a GGUF file. What breaks off goes on where it stopped, at once and
    after the same command again. HF_ENDPOINT names another hub, HF_TOKEN holds the token for files with terms.
    """
    client = ensure_daemon(invocation)
    body = {
        "reference": reference,
        "sha256": sha256,
        "name": name,
        "hub": os.environ.get("HF_ENDPOINT") or None,
        "token": os.environ.get("HF_TOKEN") or None,
    }
    done: dict[str, Any] = {}
    with ProgressLine(quiet=invocation.quiet or invocation.json) as progress:
        for done in client.lines("/api/models/pull", body):
            progress.show(done)
    if invocation.json:
        output.data_json(done)
        return
    output.data(done["model"])
    if not invocation.quiet:
        _say_how_to_use(client, done)


@command("rm")
@_name
def rm(invocation: Invocation, name: str) -> None:
    """Delete a model's file from models/, and its entry in the catalog.

    Asks on a terminal; elsewhere --yes is needed. A file that lies elsewhere stays; a model in memory is refused.
    """
    client = ensure_daemon(invocation)
    row = client.get(f"/api/models/{quote(name, safe='/')}")
    if not invocation.yes:
        question = f"Delete the model {name} ({_size(row.get('size'))}, {row.get('file', 'no file')})?"
        if invocation.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise BadInput(f"{name} is not deleted without being asked for twice", hint="add --yes")
        if not click.confirm(output.one_line(question), err=True):
            raise click.Abort
    removed = client.post("/api/models/remove", {"model": name})
    if invocation.json:
        output.data_json(removed)
        return
    output.data("\n".join([f"{name} is removed from the catalog", *(f"deleted {file}" for file in removed["files"])]))


@command("load")
@_name
def load(invocation: Invocation, name: str) -> None:
    """Load a model into memory now. NAME is a name of the catalog, or a GGUF file."""
    found = ensure_daemon(invocation).post("/api/models/load", {"model": model_named(name)}, timeout=_PATIENCE)
    if invocation.json:
        output.data_json(found)
        return
    output.data(found["name"])
    if not invocation.quiet and found.get("plan"):
        output.note(found["plan"]["why"])


@command("unload")
@_name
def unload(invocation: Invocation, name: str) -> None:
    """Give a model's memory back; refused while requests use it."""
    found = ensure_daemon(invocation).post("/api/models/unload", {"model": model_named(name)})
    if invocation.json:
        output.data_json(found)
    else:
        output.data(f"{found['model']} is no longer in memory")


@command("bench")
@_name
@click.option("--prompt", "prompt_tokens", metavar="N", type=int, default=512, help="Tokens to read (512).")
@click.option("--tokens", metavar="N", type=int, default=64, help="Tokens to write (64).")
@click.option("--cold", is_flag=True, help="Unload it first, so that the load is measured too.")
def bench(invocation: Invocation, name: str, prompt_tokens: int, tokens: int, cold: bool) -> None:
    """Measure a model: seconds to load and to the first token, tokens read and written a second."""
    body = {"model": model_named(name), "prompt_tokens": prompt_tokens, "tokens": tokens, "cold": cold}
    found = ensure_daemon(invocation).post("/api/models/bench", body, timeout=_PATIENCE)
    if invocation.json:
        output.data_json(found)
        return
    loading = "was loaded" if found["load_seconds"] is None else f"{found['load_seconds']:.2f} s"
    rows = [
        (
            found["model"],
            loading,
            f"{found['first_token']:.2f} s",
            f"{found['prompt_rate']:g} ({found['prompt_tokens']})",
            f"{found['decode_rate']:g} ({found['completion_tokens']})",
        )
    ]
    output.data(output.table(rows, ("MODEL", "LOAD", "FIRST TOKEN", "READS/S (TOKENS)", "WRITES/S (TOKENS)")))


@command("probe")
@_name
def probe(invocation: Invocation, name: str) -> None:
    """Find out what a model can do by asking it: calls of tools, real context, edits, thinking, stopping, speed.

    Kept until its file changes, shown by `model show`, used by the agent. Takes some minutes at most.
    """
    done: dict[str, Any] = {}
    with ProgressLine(quiet=invocation.quiet or invocation.json) as progress:
        for done in ensure_daemon(invocation).lines("/api/models/probe", {"model": model_named(name)}):
            progress.show(done)
    if invocation.json:
        output.data_json(done)
        return
    lines = list(_findings(done["profile"]))
    width = max(len(title) for title, _ in lines)
    output.data("\n".join(f"{title:{width}}  {output.one_line(text)}" for title, text in lines))


def _findings(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a probe found, for people; what is not known is left out."""
    yield "template", found["template"]
    if found["parse_rate"] is not None:
        spoken = f" as {found['dialect']}" if found["dialect"] else ""
        yield "calls of tools", f"{found['parse_rate']:.0%} can be read{spoken}, {found['right_rate']:.0%} are right"
    if found["usable_context"] is not None:
        tried = ", ".join(f"{fill} % {'found' if good else 'lost'}" for fill, good in found["needles"].items())
        yield "usable context", f"{found['usable_context']:,} of {found['context']:,} tokens ({tried})"
    if found["edits"]:
        rates = ", ".join(f"{name} {rate:.0%}" for name, rate in found["edits"].items())
        yield "edits", f"{found['edit_format'] or 'neither'} ({rates} right)"
    if found["thinks"] is not None:
        yield "thinking", f"{'yes' if found['thinks'] else 'no'}, {'can' if found['silent'] else 'cannot'} be left out"
    if found["stops"] is not None:
        ends = ", ".join(found["stop_tokens"])
        yield "stops by itself", ("yes" if found["stops"] else "no") + (f" ({ends})" if ends else "")
    if found["speed"] is not None:
        yield "speed", f"reads {found['prompt_speed']:g}, writes {found['speed']:g} tokens a second"


def model_named(name: str) -> str:
    """A GGUF file by its whole path, since the daemon works in another folder; any other name as it is."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name.lower().endswith(".gguf") and path.exists() else name


def _row(model: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        model["name"],
        ", ".join(model["roles"]) or "-",
        model["state"],
        _size(model.get("size")),
        model.get("quantisation") or "-",
        model["context"],
        _speed(model),
        model["file"],
    )


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _speed(model: Mapping[str, Any]) -> str:
    if model.get("plan"):
        return f"~{model['plan']['expected']:.3g}/s"
    return "does not fit" if model.get("problem") else "-"


def _facts(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What `show` says, in its order."""
    lines: list[tuple[str, object]] = [("model", found["name"]), ("roles", ", ".join(found["roles"]) or "none")]
    lines += [(title, found[title]) for title in ("backend", "state", "file") if found.get(title)]
    if found.get("size"):
        lines.append(("size", _size(found["size"])))
    lines += [(name, _shown(each)) for name, each in found["entry"].items() if name != "source" or "file" not in found]
    for name, value in (found["header"] or {}).items():
        if value not in (None, 0, ""):
            lines.append((f"file: {name}", _shown(value)))
    if found.get("plan"):
        lines.append(("loaded as" if found["state"] == "loaded" else "would load as", found["plan"]["why"]))
        lines.append(("expected", f"about {found['plan']['expected']:.3g} tokens a second"))
    if found.get("problem"):
        lines.append(("problem", found["problem"]))
    if found.get("profile"):
        lines += [(f"probed: {title}", text) for title, text in _findings(found["profile"])]
    return lines


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _say_how_to_use(client: Client, done: Mapping[str, Any]) -> None:
    name = done["model"]
    output.note(f"{_size(done['size'])} at {done['file']}")
    row = client.get(f"/api/models/{quote(name, safe='/')}")
    if row.get("plan"):
        output.note(f"it fits: {row['plan']['why']}; about {row['plan']['expected']:.3g} tokens a second")
    elif row.get("problem"):
        output.note(f"{output.paint('error:', 'red', sys.stderr)} {row['problem']}")
    if not row["roles"]:
        output.note(
            f"no role uses it yet: try it with `agentd model load {name}`, "
            f'or put "{name}" first in a role of models/catalog.toml'
        )


for each in (ls, show, pull, rm, load, unload, probe, bench):
    group.add_command(each)
