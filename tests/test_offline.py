"""The tests' own guard: nothing of the caller's, nothing beyond this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.request

import pytest

import offline


@pytest.mark.parametrize(
    "where", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0), ("third.example", 80)]
)
def test_the_network_is_out_of_reach_and_who_tried_is_listed(
    where: tuple, reached: list[str]
) -> None:
    with pytest.raises(offline.NoNetwork, match=f"reached for {where[0]}:80"):
        socket.create_connection(where[:2])
    assert reached == [f"{where[0]}:80"]
    reached.clear()


async def test_neither_by_asyncio_nor_by_a_library(reached: list[str]) -> None:
    with pytest.raises(offline.NoNetwork):
        await asyncio.open_connection("192.0.2.1", 80)
    with pytest.raises(OSError, match=r"third\.example"):
        await asyncio.to_thread(urllib.request.urlopen, "http://third.example/")
    assert reached == ["192.0.2.1:80", "third.example:80"]
    reached.clear()


@pytest.mark.parametrize(
    ("address", "here"),
    [
        (("127.0.0.1", 80), True),
        (("localhost", 80), True),
        (("::1", 80, 0, 0), True),
        ("/run/socket", True),
        (b"\0abstract", True),
        (("10.0.0.1", 80), False),
        (("fe80::1%eth0", 80, 0, 2), False),
    ],
)
def test_loopback_is_here(address: object, here: bool) -> None:
    assert offline.is_here(address) is here


def test_the_callers_environment_changes_nothing() -> None:
    code = "import os, offline; print(*sorted(os.environ))"
    theirs = {"MEDRAFT_LLM": "base", "OPENAI_API_KEY": "x", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=os.path.dirname(offline.__file__),
        env=os.environ | theirs,
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(done.stdout.split())
    assert not names & theirs.keys()
    assert names >= offline.OURS.keys()
