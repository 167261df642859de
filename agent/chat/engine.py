"""The chat engine, one per conversation: what it has chosen, what it remembers, its next turn.

Owns the memory, which holds what the patient saw, no more and no less: a stopped answer as far as
it came. Does not know what a turn does (`turn.py`), nor who shows the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.memory import ChatMemoryBuffer

from agent.behaviour import LLMChoice, Retrieval
from agent.chat.events import Event
from agent.chat.metrics import counted
from agent.chat.parts import Choices, Loading
from agent.chat.spans import traced
from agent.chat.turn import Turn
from agent.chat.views import ChatEngineViews
from agent.llms.interface import Sampling
from agent.settings import Settings
from agent.templates import Language


class PatientChatEngine(ChatEngineViews):
    """A conversation. `llm`, `retrieval`, `language` and `country` of the emergency notice,
    `sampling`, `stop` (strings that end the LLM's answer before them) and `instructions` (what the
    system prompt says besides) may be set between turns; the next one heeds them. Where `watchful`
    is off, emergencies are not looked for, and the LLM answers them as anything else: for who
    measures it.

    `loading` is awaited by each turn that has a use for what is loaded, and not before.
    """

    def __init__(
        self, settings: Settings, loading: Loading, history: Sequence[ChatMessage] = ()
    ) -> None:
        self.llm: LLMChoice = settings.llm or "base"
        self.retrieval: Retrieval = settings.retrieval
        self.language: Language = "en"
        self.country = settings.country
        self.watchful = True
        self.sampling = Sampling(settings.max_tokens, settings.temperature, settings.top_p)
        self.stop: tuple[str, ...] = ()
        self.instructions = ""
        self._settings = settings
        self._loading = loading
        # Cutting to the window is the prompt's task, by the model's own tokenizer; this keeps all.
        self._memory = ChatMemoryBuffer.from_defaults(
            chat_history=list(history), token_limit=settings.context_window, tokenizer_fn=str.split
        )
        self._one_turn_at_a_time = asyncio.Lock()

    async def turn(self, message: str) -> AsyncGenerator[Event, None]:
        """Answer `message`; closing the generator stops the engine and keeps what was said.

        Raises AgentError or StoreError, whose text is for the patient; what was already said is
        remembered.
        """
        # Halves of a UTF-16 pair, which browsers send in JSON, are no text to any tokenizer.
        message = message.encode("utf-8", "replace").decode()
        async with self._one_turn_at_a_time, self._remembered(message) as said:
            with counted() as figures, traced(figures) as trace:
                turn = Turn(self._loading, self._choices(), self.chat_history, message, said, trace)
                async with aclosing(turn.events()) as events:
                    async for event in events:
                        figures.see(event)
                        trace.see(event)
                        yield event

    def another(self, history: Sequence[ChatMessage]) -> PatientChatEngine:
        """A conversation of its own with the choices of this one, after `history`."""
        other = PatientChatEngine(self._settings, self._loading, history)
        other.llm, other.retrieval = self.llm, self.retrieval
        other.language, other.country = self.language, self.country
        other.watchful = self.watchful
        other.sampling, other.stop = self.sampling, self.stop
        other.instructions = self.instructions
        return other

    def _choices(self) -> Choices:
        return Choices(
            self.llm,
            self.retrieval,
            self.language,
            self.country,
            self.watchful,
            self.sampling,
            self.stop,
            self.instructions,
            self._settings.context_window,
        )

    @asynccontextmanager
    async def _remembered(self, message: str) -> AsyncIterator[list[str]]:
        """However the turn ends, memory gets the question with what was said to it. A question
        without a word said to it is forgotten: many chat templates refuse two in a row."""
        said: list[str] = []
        try:
            yield said
        finally:
            if text := "".join(said).strip():
                self._memory.put(ChatMessage(role=MessageRole.USER, content=message))
                self._memory.put(ChatMessage(role=MessageRole.ASSISTANT, content=text))

    def take_over(self, before: int, question: str, answer: str, new: bool) -> None:
        """Remember question and answer after the first `before` messages of `chat_history`: as an
        exchange more (`new`), or in place of the one that stands there; call it between turns."""
        history = self.chat_history
        exchange = [
            ChatMessage(role=MessageRole.USER, content=question),
            ChatMessage(role=MessageRole.ASSISTANT, content=answer),
        ]
        later = history[before if new else before + len(exchange) :]
        self._memory.set([*history[:before], *exchange, *later])

    def reset(self) -> None:
        """Forget the conversation."""
        self._memory.reset()

    def recall(self, chat_history: list[ChatMessage]) -> None:
        """Have `chat_history` for all that was said; call it between turns."""
        self._memory.set(chat_history)

    def rewind(self, messages: int) -> None:
        """Forget all but the first so many messages of `chat_history`; call it between turns."""
        self._memory.set(self.chat_history[:messages])

    @property
    def chat_history(self) -> list[ChatMessage]:
        """What was said, oldest first."""
        return self._memory.get_all()
