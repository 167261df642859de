"""The secret that signs the page's logins: made once, readable by its owner only.

Owns the file `auth_secret` in MEDRAFT_HOME and the variable by which Chainlit gets it. Does not
know who logs in.
"""

from __future__ import annotations

import os
import secrets

from filelock import FileLock

from agent.errors import AgentError
from agent.settings import Settings
from index_store.disk import write_private

VARIABLE = "CHAINLIT_AUTH_SECRET"


def provide(settings: Settings) -> None:
    """Set Chainlit's variable, unless it is set. Raises AgentError if the file cannot be had.

    All processes of one MEDRAFT_HOME get the same secret; those of several homes need the
    variable, or each would refuse the logins of the others.
    """
    if os.environ.get(VARIABLE):
        return
    path = settings.home / "auth_secret"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(".auth_secret.lock")):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(48))
            secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise AgentError(
            f"The secret for logins cannot be kept in {path} ({type(error).__name__}): make that "
            f"place writable, set MEDRAFT_HOME to another, or set {VARIABLE}."
        ) from None
    if len(secret) < 32:
        raise AgentError(f"The secret for logins in {path} is damaged: remove the file.")
    os.environ[VARIABLE] = secret
