"""What other libraries say, as our own sentences hold it."""

from __future__ import annotations

import pytest

from index_store.errors import first_sentence, reason


@pytest.mark.parametrize(
    ("said", "inside", "alone"),
    [
        ("no such file", "no such file", "no such file."),
        ("No such file.\nTraceback ...", "No such file", "No such file."),
        ("\n  It failed:\nfor two reasons", "It failed", "It failed."),
        ("Is it there?", "Is it there?", "Is it there?"),
        ("", "ValueError", "ValueError."),
        (" \n", "ValueError", "ValueError."),
    ],
)
def test_an_error_of_another_library_in_one_line(said: str, inside: str, alone: str) -> None:
    assert reason(ValueError(said)) == inside
    assert first_sentence(ValueError(said)) == alone
