"""The tests depend on nobody's environment and reach for no network.

Owns the environment that they and their servers run in, and the guard before the network. Knows
nothing of what is tested. Imported before all else: much of it is read at import.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

THE_CALLERS = (
    *("MEDRAFT_", "CHAINLIT_", "OAUTH_", "OPENAI_", "HF_", "HUGGING", "TRANSFORMERS_"),
    *("OTEL_", "FASTAPI_"),
)
_hub = TemporaryDirectory(prefix="medraft-hub-")  # no cache and no token of the caller's
OURS = {
    "HF_HOME": _hub.name,
    "HF_HUB_OFFLINE": "1",
    # Two processes test side by side on two cores: threads that wait for each other are slower.
    "MEDRAFT_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # What one process has compiled need not be compiled by every server and every run.
    "PYTHONDONTWRITEBYTECODE": "",
    # As where nothing but medraft is installed; uvicorn would take what others' clients bring.
    "UVICORN_WS_PROTOCOL": "wsproto",
}


class NoNetwork(OSError):
    """What a test gets that reaches for the network; to the code under test, a lost connection."""


def clean() -> None:
    """Only what is ours stands in the environment, of all that could change what is tested."""
    for name in list(os.environ):
        if name.startswith(THE_CALLERS) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(OURS)
    sys.dont_write_bytecode = False


def is_here(address: Any) -> bool:
    """Whether an address of a socket is this machine's: loopback, or no address of the internet."""
    if not (isinstance(address, tuple) and address and isinstance(address[0], str)):
        return True
    host = address[0].partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host in ("", "localhost")
    return ip.is_loopback or ip.is_unspecified


@contextmanager
def guard() -> Iterator[list[str]]:
    """Until the block ends, what is reached for elsewhere is listed and refused."""
    reached: list[str] = []

    def refuse(address: Any) -> None:
        if not is_here(address):
            reached.append(":".join(map(str, address[:2])))
            raise NoNetwork(f"A test reached for {reached[-1]}: only loopback is there.")

    def guarded(name: str) -> Any:
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            refuse(address)
            return real(self, address)

        return patch.object(socket.socket, name, connect)

    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        # A number is looked up nowhere.
        if text is not None and not text.replace(".", "").isdecimal() and ":" not in text:
            refuse((text, port))
        return look_up(host, port, *more, **named)

    with (
        guarded("connect"),
        guarded("connect_ex"),
        patch.object(socket, "getaddrinfo", getaddrinfo),
    ):
        yield reached


clean()
