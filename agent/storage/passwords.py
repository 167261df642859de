"""The accounts of the page: names and password hashes in one file that only its owner may read.

Owns the file `accounts.json` in MEDRAFT_HOME and the hash: scrypt (RFC 7914) with the parameters
that OWASP's Password Storage Cheat Sheet gives for it (N=2^15, r=8, p=3), and a salt of its own
for each password. Does not know how somebody logs in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path

from filelock import FileLock

from agent.errors import AgentError
from index_store.disk import write_private

SHORTEST = 8  # characters, as NIST SP 800-63B wants
COST = (2**15, 8, 3)  # N, r, p


class Passwords:
    """The file of one MEDRAFT_HOME. It is read anew each time: a command may have changed it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "accounts.json"

    def names(self) -> list[str]:
        """Who has an account, in alphabetical order. Raises AgentError if the file is damaged."""
        return sorted(self._read())

    def put(self, name: str, password: str) -> bool:
        """Add an account, or give it another password; returns whether it is new.

        Raises AgentError for a name or a password that cannot be used.
        """
        if not name or name != name.strip() or not name.isprintable():
            raise AgentError("An account's name must be printable text without spaces around it.")
        if len(password) < SHORTEST:
            raise AgentError(f"The password is too short: use {SHORTEST} characters or more.")
        with self._lock():
            accounts = self._read()
            new = name not in accounts
            self._write(accounts | {name: _hash(password, secrets.token_bytes(16))})
        return new

    def remove(self, name: str) -> None:
        """Take an account away; what it said stays. Raises AgentError if there is none."""
        with self._lock():
            accounts = self._read()
            if name not in accounts:
                raise AgentError(f"There is no account {name} in {self.path}.")
            del accounts[name]
            self._write(accounts)

    def check(self, name: str, password: str) -> bool:
        """Whether this is the account's password; as slow for a name that is not there."""
        stored = self._read().get(name, _NOBODY)
        cost, salt, _ = stored.split("$")
        again = _hash(password, bytes.fromhex(salt), tuple(map(int, cost.split(":"))))
        return hmac.compare_digest(again, stored)

    def fingerprint(self, name: str) -> str | None:
        """Changes with the password; None if there is no such account."""
        stored = self._read().get(name)
        return stored and hashlib.sha256(stored.encode()).hexdigest()[:16]

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(".accounts.lock"))

    def _read(self) -> dict[str, str]:
        try:
            accounts = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(name): str(stored) for name, stored in accounts.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise AgentError(
                f"The accounts in {self.path} cannot be read ({type(error).__name__}): "
                "restore the file, or remove it and add the accounts again."
            ) from None

    def _write(self, accounts: dict[str, str]) -> None:
        write_private(self.path, json.dumps(accounts, indent=1, ensure_ascii=False) + "\n")


def _hash(password: str, salt: bytes, cost: tuple[int, ...] = COST) -> str:
    n, r, p = cost
    memory = 2 * 128 * n * r
    given = password.encode("utf-8", "surrogatepass")
    key = hashlib.scrypt(given, salt=salt, n=n, r=r, p=p, maxmem=memory)
    return f"{n}:{r}:{p}${salt.hex()}${key.hex()}"


# Compared with what is no hash at all: nobody's password.
_NOBODY = f"{':'.join(map(str, COST))}${bytes(16).hex()}$"
