"""What the tests of commands share: one that is refused is run in this process."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import pytest

from agent.cli import main

Medraft = Callable[..., subprocess.CompletedProcess[str]]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medraft:
    """The console script without a process of its own, whose libraries would be imported anew."""

    def run(
        *arguments: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["medraft", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code, told = ended.value.code, capsys.readouterr()
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, told.out, told.err)

    return run


def refused(done: subprocess.CompletedProcess[str], *named: str) -> None:
    """One sentence on standard error that names what is wrong, exit code 2, nothing else."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for name in named:
        assert name in done.stderr
