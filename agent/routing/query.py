"""What a message is searched by, with the turns that it goes on from.

Owns which texts search, and in which order. Knows nothing of how the turns were chosen, nor of the
index.
"""

from __future__ import annotations

from collections.abc import Sequence

SELF_CONTAINED = 8  # words from which on a message may speak for itself


def queries(turns: Sequence[str]) -> list[str]:
    """Of the patient's turns, at least one, oldest first: what to search with, one after another
    until a reply fits. A message alone, unless it is too short to say what it is about; then it and
    what it goes on from, which comes behind it: an embedding model may not read to the end."""
    message = turns[-1]
    if len(turns) == 1:
        return [message]
    whole = "\n".join(reversed(turns))
    return [message, whole] if len(message.split()) >= SELF_CONTAINED else [whole]
