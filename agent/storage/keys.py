"""The keys of the endpoint: names and hashes in one file that only its owner may read.

Owns the file `keys.json` in MEDRAFT_HOME, what a key is (256 random bits, so that one SHA-256 hides
it as well as a slow hash would), and the secret by which links are signed, made with the first key.
Does not know who asks, nor for what.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from agent.errors import AgentError
from index_store.disk import write_private

PREFIX = "medraft-"


@dataclass(frozen=True)
class _Kept:
    """What the file holds: the hash of each name's key, and the secret of links."""

    hashes: dict[str, str]
    secret: str


class Keys:
    """The file of one MEDRAFT_HOME. It is read anew each time: a command may have changed it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "keys.json"

    def names(self) -> list[str]:
        """Whose keys there are, in alphabetical order. Raises AgentError for a damaged file."""
        return sorted(self._read().hashes)

    def add(self, name: str) -> str:
        """A new key, which can be read here and never again. Raises AgentError for a name that
        cannot be used, or has one."""
        if not name or name != name.strip() or not name.isprintable():
            raise AgentError("A key's name must be printable text without spaces around it.")
        key = PREFIX + secrets.token_urlsafe(32)
        with self._lock():
            kept = self._read()
            if name in kept.hashes:
                raise AgentError(
                    f"There is a key {name} already: remove it first, or give this one another "
                    "name."
                )
            secret = kept.secret or secrets.token_urlsafe(32)
            self._write(_Kept(kept.hashes | {name: _hash(key)}, secret))
        return key

    def remove(self, name: str) -> None:
        """Take a key back, from the next request on. Raises AgentError if there is none."""
        with self._lock():
            kept = self._read()
            if name not in kept.hashes:
                raise AgentError(f"There is no key {name} in {self.path}.")
            left = {other: stored for other, stored in kept.hashes.items() if other != name}
            self._write(_Kept(left, kept.secret))

    def owner(self, key: str) -> str | None:
        """Whose key it is, in a time that does not tell how near another one was."""
        given, found = _hash(key), None
        for name, stored in self._read().hashes.items():
            if hmac.compare_digest(stored, given):
                found = name
        return found

    def signing(self) -> Callable[[str], str] | None:
        """What makes of a text what nobody can who cannot read the file; None while there is no
        key. Raises AgentError for a damaged file."""
        kept = self._read()
        secret = kept.secret.encode()
        if not (kept.hashes and secret):
            return None
        return lambda text: hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _lock(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(".keys.lock"))

    def _read(self) -> _Kept:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            hashes = {str(name): str(stored) for name, stored in kept["keys"].items()}
            return _Kept(hashes, str(kept["secret"]))
        except FileNotFoundError:
            return _Kept({}, "")
        except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
            raise AgentError(
                f"The keys in {self.path} cannot be read ({type(error).__name__}): "
                "restore the file, or remove it and make new ones."
            ) from None

    def _write(self, kept: _Kept) -> None:
        whole = {"keys": kept.hashes, "secret": kept.secret}
        write_private(self.path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
