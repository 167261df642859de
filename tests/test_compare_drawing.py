"""A comparison is drawn as often as an eye wants it, however fast its words come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import chainlit as cl
import pytest
from chainlit.context import init_http_context

from agent.chat.events import Delta, Finished, HeldBack
from agent.page import columns, compare


@pytest.mark.parametrize(("words_a_second", "most"), [(100, 7), (2, 2)])
async def test_a_text_that_grows_is_not_drawn_at_every_word(
    monkeypatch: pytest.MonkeyPatch, words_a_second: int, most: int
) -> None:
    init_http_context()
    now = [1000.0]
    drawn: list[float] = []

    async def send(self: cl.Message) -> None: ...

    async def draw(*_: Any) -> None:
        drawn.append(now[0])

    monkeypatch.setattr(compare, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(compare, "_draw", draw)
    monkeypatch.setattr(cl.Message, "send", send)
    screen = compare.ComparisonOnScreen(columns.Comparison("id", "What helps?"), sample=False)
    for word in range(words_a_second):  # a second of them
        now[0] = 1000 + word / words_a_second
        await screen.show("RAG", Delta("word "))
    assert len(drawn) == most
    column = screen.comparison.column("RAG")
    assert column is not None and column.answer == "word " * words_a_second


async def test_our_own_words_bear_no_behaviours_name(monkeypatch: pytest.MonkeyPatch) -> None:
    init_http_context()

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(compare, "_draw", nothing)
    monkeypatch.setattr(cl.Message, "send", nothing)
    screen = compare.ComparisonOnScreen(columns.Comparison("id", "It hurts."), sample=False)
    for event in (HeldBack(), Delta("Call now."), Finished("Call now.", speaker="medraft")):
        await screen.show("RAG", event)
    column = screen.comparison.column("RAG")
    assert column is not None and column.about()["behaviour"] is None
