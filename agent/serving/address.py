"""Where a server stands, and whether a request comes from the same machine.

Owns what loopback is, and that a port is free before anything slow. Knows no server.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from agent.errors import AgentError

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches `host`, a name or an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_this_machine(headers: Headers) -> bool:
    """Neither through a proxy nor by a name that another website has pointed to this machine."""
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return False
    return is_loopback(name or "") and not any(known in headers for known in FORWARDED)


def is_foreign(headers: Headers) -> bool:
    """Whether the page of another website sends the request."""
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
    except ValueError:
        return True


def check_port(host: str, port: int) -> None:
    """Raises AgentError if nothing can be served there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # As the server itself does: a port that was left a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise AgentError(
            f"medraft cannot be served at {host}:{port} ({error.strerror}): "
            "choose another port with --port, or end what runs there."
        ) from None
