"""`token`: what the daemon's TCP port asks for."""

from __future__ import annotations

import click

from agentd.api.auth import ensure_token
from agentd.cli import output
from agentd.cli.client import home_of
from agentd.cli.options import Invocation, command
from agentd.errors import AgentdError
from agentd.home import Home


@command("token")
@click.option("--url", "with_url", is_flag=True, help="Print the address with the token in it, for a browser.")
def token(invocation: Invocation, with_url: bool) -> None:
    """The token that the daemon's TCP port asks for; made when there is none yet."""
    home = home_of(invocation)
    found = ensure_token(home.token_path)
    if with_url:
        # After the # it stays in the browser: it stands in no request line and in no log.
        address = f"{_tcp_address(home)}/#token={found}"
    if invocation.json:
        output.data_json({"token": found} | ({"url": address} if with_url else {}))
    else:
        output.data(address if with_url else found)


def _tcp_address(home: Home) -> str:
    try:
        return home.url_path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        hint = "set `tcp = true` under [api] in agentd.toml and start the daemon"
        raise AgentdError("no daemon of this home listens on TCP", hint=hint) from None
