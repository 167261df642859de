"""The persisted index of doctors' replies: rows in, an index on disk, nearest replies out.

Owns where the index lies unless told otherwise. Knows nothing of the agent that uses it.
"""

from pathlib import Path

PERSISTED = Path(__file__).resolve().parent / "persisted"
SAMPLE = Path(__file__).resolve().parent / "sample"
