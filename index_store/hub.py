"""Data sets of the Hugging Face Hub, and folders laid out as they are.

Owns the sentence for each way that these cannot be had. Does not know which columns are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from index_store.errors import StoreError, reason
from index_store.lines import Row

LIMIT = 1_000  # rows, unless told otherwise
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class Part:
    """Which configuration (subset) of a data set, and which split of it."""

    config: str | None = None
    split: str | None = None

    def options(self) -> str:
        """As the command line has it, behind the name: by this a source is known again."""
        named = (("config", self.config), ("split", self.split))
        return "".join(f" --{name} {value}" for name, value in named if value)


def published(name: str, part: Part) -> Iterator[Row]:
    """Rows of a data set by its name on the Hub. Raises StoreError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        # Asked first, because `datasets` retries a Hub that does not answer for minutes.
        HfApi().dataset_info(name, timeout=TIMEOUT)
    except RepositoryNotFoundError:
        raise StoreError(
            f"{name} is neither a file nor a data set that the Hugging Face Hub shows: check the "
            "name, and log in with `hf auth login` if it is private."
        ) from None
    except Exception as error:  # whatever the HTTP client raises for a Hub that is not reached
        raise StoreError(
            f"The data set {name} cannot be reached on the Hugging Face Hub ({reason(error)}): "
            "check the connection, or give a file as --source."
        ) from None
    yield from laid_out(name, part)


def laid_out(name: str, part: Part) -> Iterator[Row]:
    """Rows of a data set by its name on the Hub or its folder. Raises StoreError."""
    from datasets import load_dataset

    try:
        data = load_dataset(name, part.config, split=part.split or "train", streaming=True)
        for number, row in enumerate(data, 1):
            yield f"{name}, row {number}", row
    except Exception as error:  # `datasets` passes on what every format and transport raises
        raise StoreError(
            f"The data set {name} cannot be read ({reason(error)}): give another --source, "
            "--config or --split."
        ) from None
