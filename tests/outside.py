"""What tests need from outside this project, and where they find it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# The same browser without its windows, where it is: a page takes it a third less.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
_on_the_path = [Path(found).parent for found in [shutil.which("initdb")] if found]
_debians = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
POSTGRES = next(iter([*_on_the_path, *_debians]), None)
CURL = shutil.which("curl")
NODE = shutil.which("node")
# `npm ci --prefix tests/ai_sdk` puts it there.
AI_SDK = Path(__file__).with_name("ai_sdk") / "node_modules" / "ai"


def needs(thing: str, there: object) -> pytest.MarkDecorator:
    """Marks a test of `thing`. Without it the test is skipped, and says so; in CI it fails:
    conftest.py sees to both."""
    return pytest.mark.needs(thing, bool(there))


needs_browser = needs("chromium", CHROMIUM)
needs_postgres = needs("postgresql", POSTGRES)
needs_curl = needs("curl", CURL)
needs_ai_sdk = needs("the AI SDK", NODE and AI_SDK.is_dir())


@dataclass
class Postgres:
    """A server of its own in a folder, spoken to through a socket there."""

    folder: str

    @property
    def address(self) -> str:
        """With {name} for a database's name; there is one by the name of postgres."""
        return f"postgresql://medraft@/{{name}}?host={self.folder}"

    def make(self) -> None:
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-U", "medraft", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -k {self.folder}"
        self._run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    @property
    def _user(self) -> str | None:
        # Postgres does not run as root; Debian's package brings a user for it.
        return "postgres" if os.geteuid() == 0 else None

    def _run(self, name: str, *arguments: str) -> None:
        assert POSTGRES is not None
        command = [str(POSTGRES / name), "-D", f"{self.folder}/data", *arguments]
        silent = subprocess.DEVNULL
        subprocess.run(command, user=self._user, cwd=self.folder, check=True, stdout=silent)
