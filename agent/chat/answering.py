"""An LLM's answer as it comes: its words, checked and cited sentence by sentence.

Owns that no sentence is shown whose claims nobody bears (agent.chat.claims), that such a one is
asked for anew, twice at most, then left out with a note in its place, and that behind a sentence
stand the sources that bear it: those that the LLM cites, as far as they do, or else what
agent.chat.support finds; and that what is said again is not shown again. Does not know how the
prompt came about, nor who shows the words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole

from agent.behaviour import Behaviour
from agent.chat.claims import Borne, may_claim
from agent.chat.events import (
    Claims,
    Delta,
    Event,
    Finished,
    Notice,
    Timing,
    Unborne,
    Waiting,
    since,
)
from agent.chat.gate import Ended, Gate, Words
from agent.chat.length import StopStrings, is_enough, said
from agent.chat.marks import UNCHECKED, citation, left_out, without_marks
from agent.chat.prompting import Prompt
from agent.chat.support import Sources, Supported, words_begin
from agent.llms.interface import ChatLLM, Sampling
from agent.settings import ClaimsMode
from agent.templates import Language

# How freely a sentence is drawn that is asked for anew: drawn as before it would be the same one.
ANEW = (0.6, 0.9)
HARDLY = 4  # words


class _Anew(Exception):
    """The last sentence is to be asked for anew; `begun` is what of it has been shown."""

    def __init__(self, begun: str) -> None:
        self.begun = begun


@dataclass
class Answering:
    """The answer of `llm` to `asked`; `said` grows by all that is shown.

    `sources` are None where the prompt holds no replies. `events` may be run once; the rest is
    whole when it has ended: `ended` is whether the LLM did it itself, `answer` what was shown.
    """

    llm: ChatLLM
    asked: Prompt
    sampling: Sampling
    stop: tuple[str, ...]
    checking: ClaimsMode
    borne: Borne
    sources: Sources | None
    language: Language
    said: list[str]
    timing: Timing
    start: float
    ended: bool = True
    answer: str = ""
    support: list[Supported] = field(default_factory=list)
    claims: Claims = field(default_factory=Claims)
    _told: str = ""  # the answer without notes: the LLM's own, from which it can go on
    _heard: str = ""  # every sentence that has ended, also one that was left out
    _tokens: int = 0  # until the last of these had ended
    _tries: int = 0  # at the sentence that comes
    _noted: bool = False  # the last that was shown is a note

    async def events(self) -> AsyncGenerator[Event, None]:
        """Waiting, Notice and Delta, in order; closing this stops the engine. Raises AgentError."""
        begun = ""
        while (left := self.sampling.max_tokens - self._tokens) > 0:
            gate = Gate(self._holds, begun)
            try:
                async with aclosing(self._stream(gate, left)) as events:
                    async for event in events:
                        yield event
                break
            except _Anew as anew:
                begun = anew.begun
        self.ended = self.ended and self.timing.tokens < self.sampling.max_tokens
        self.answer = self.answer.strip()

    def finished(self, mode: Behaviour) -> Finished:
        """The end of the turn, once `events` has ended."""
        self.timing.total_ms = since(self.start)
        speaker = mode if self.answer else None
        return Finished(self.answer, self.timing, self.ended, self.support, self.claims, speaker)

    async def _stream(self, gate: Gate, left: int) -> AsyncGenerator[Event, None]:
        """One stream of the engine. Raises _Anew."""
        before, heard = self._tokens, False
        self.ended = True
        stops = StopStrings(self.stop)
        warmth = max(self.sampling.temperature, ANEW[self._tries - 1] if self._tries else 0.0)
        drawn = replace(self.sampling, max_tokens=left, temperature=warmth)
        stream = await self.llm.astream_chat(self._messages(), **asdict(drawn))
        async with aclosing(stream):
            async for response in stream:
                if (event := _about(response)) is not None:
                    yield event
                    continue
                raw = response.raw or {}
                self.timing.tokens = before + raw["tokens"]
                self.ended = self.ended and "cut" not in raw
                delta = stops.before(response.delta or "")
                if not heard and not delta.strip() and not stops.found:
                    continue  # space before the first word
                pieces = gate.push(delta if heard else self._joined(delta))
                heard = True
                async for event in self._show(pieces):
                    yield event
                if stops.found:
                    break
                whole = self._heard + gate.sentence
                if is_enough(whole, self.timing.tokens, self.sampling.max_tokens):
                    self.ended = False
                    break
        if stops.found in self.asked.orders and self._has_hardly_begun(gate.sentence):
            self._tries += 1
            raise _Anew(gate.begun)
        async for event in self._show([*gate.push(stops.held), *gate.close()]):
            yield event

    def _has_hardly_begun(self, sentence: str) -> bool:
        """Whether an LLM that says our order has answered nothing yet, and may try again."""
        words = (self._heard + sentence).removeprefix(self.asked.opening).split()
        return len(words) < HARDLY and self._tries < len(ANEW)

    def _messages(self) -> list[ChatMessage]:
        """The prompt, and what was shown of the answer for the LLM to go on from."""
        if not self._told.strip():
            return self.asked.messages
        *before, last = self.asked.messages
        begun = ChatMessage(role=MessageRole.ASSISTANT, content=self._told.rstrip())
        return [*before, *([] if last.role == MessageRole.ASSISTANT else [last]), begun]

    def _joined(self, first: str) -> str:
        """The first piece of a stream, behind the words that it goes on from."""
        if not self._told:
            return self.asked.opening + first.lstrip()
        space = "" if self._told[-1].isspace() else " "
        return space + first.lstrip()

    def _holds(self, begun: str) -> bool:
        """Whether a sentence that begins so waits: it may claim something, or be said again."""
        if self.checking == "checked" and may_claim(begun):
            return True
        return any(each.startswith(begun.lower()) for each in self._shown())

    def _shown(self) -> list[str]:
        """What is not shown again; behind the mark of a list's item, which stands there, all is."""
        item = self._told.rpartition("\n")[2].strip()
        if item and words_begin(f"{item} ") > len(item):
            return []
        return said(without_marks(self._told))

    async def _show(self, pieces: Iterable[Words | Ended]) -> AsyncGenerator[Delta, None]:
        """What is shown of these. Raises _Anew."""
        texts: list[str] = []
        try:
            for piece in pieces:
                if isinstance(piece, Words):
                    texts.append(self._add(piece.text))
                else:
                    texts.append(await self._end(piece))
        except _Anew:
            if delta := self._delta(texts):
                yield delta
            raise
        if delta := self._delta(texts):
            yield delta

    def _delta(self, texts: Iterable[str]) -> Delta | None:
        if not (text := "".join(texts)):
            return None
        self.timing.first_token_ms = self.timing.first_token_ms or since(self.start)
        self.said.append(text)
        return Delta(text)

    def _add(self, text: str) -> str:
        """The LLM's own words are shown; no space stands before the first."""
        text = text if self.answer else text.lstrip()
        self.answer += text
        self._told += text
        self._noted = self._noted and not text.strip()
        return text

    async def _end(self, ended: Ended) -> str:
        """What is shown when a sentence has ended. Raises _Anew."""
        begun = ended.sentence.removesuffix(ended.rest) if ended.rest else ended.sentence
        says = ended.sentence[words_begin(f"{ended.sentence} ") :]
        if says and not begun.strip() and says.lower() in self._shown():
            self._heard_of(ended)
            return ""
        kinds = await asyncio.to_thread(self.borne.unborne, says) if says else frozenset()
        if kinds and self.checking == "checked":
            if self._tries < len(ANEW):
                self._tries += 1
                self.claims.asked_anew += 1
                raise _Anew(begun)
            note = left_out(kinds, self.language, again=self.claims.left_out > 0)
            return self._leave_out(ended, begun, note)
        self._heard_of(ended)
        text = self._add(ended.rest)
        start, end = len(self.answer) - len(says), len(self.answer)
        if self.sources is not None and says:
            found = await asyncio.to_thread(self.sources.support, says, ended.cited)
            if found is not None:
                self.support.append(replace(found, start=start, end=end))
            if found is not None and found.source is not None:
                text += self._add(citation([found.source, *found.also]))
        if kinds:
            self.claims.unborne.append(Unborne(start, end, sorted(kinds)))
            if self.checking == "marked":
                text += self._add(UNCHECKED)
        return text + self._add(ended.space)

    def _leave_out(self, ended: Ended, begun: str, note: str) -> str:
        self._heard_of(ended)
        self.claims.left_out += 1
        self._told = self._told.removesuffix(begun.lstrip())
        if self._noted and not begun.strip():
            return ""
        between = " … " if begun.strip() else ""
        text = f"{between}{note}{ended.space or ' '}"
        self.answer += text
        self._noted = True
        return text

    def _heard_of(self, ended: Ended) -> None:
        self._heard += ended.sentence + ended.space
        self._tokens, self._tries = self.timing.tokens, 0


def _about(response: ChatResponse) -> Event | None:
    """What the engine says besides the answer."""
    raw = response.raw or {}
    if "waiting" in raw:
        return Waiting(raw["waiting"])
    return Notice(raw["notice"]) if "notice" in raw else None
