"""A conversation on the page, in every state of a turn: Stop, edit, another try, resume, choices.

Chainlit's own handlers, our history and our engine, with a scripted LLM and a screen that does
with the server's events as the page does, so that each state can be held.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import chainlit as cl
import chainlit.data as chainlits_data
import chainlit.socket as chainlits
import pytest
from chainlit.chat_context import chat_context
from chainlit.config import config
from chainlit.context import init_ws_context
from chainlit.server import sio
from chainlit.session import WebsocketSession
from chainlit.types import ThreadDict
from chainlit.user import User
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseAsyncGen

from agent import settings
from agent.chat.loading import Agent
from agent.errors import AgentError
from agent.llms.interface import Engine
from agent.page import chainlit_hooks, choices, compare, resume, server_hooks
from agent.page.conversation import SESSIONS, Conversation, end_elsewhere, one_turn, to_the_end
from agent.page.history import History
from agent.page.language import say
from agent.routing.embedding import TurnEmbedding
from agent.safety.triage import CALM, Verdict
from agent.storage import database, threads
from index_store.embedding import EMBEDDED, Embed
from index_store.retriever import DoctorReplyRetriever
from index_store.store import IndexStore

from scripted import ScriptedLLM
from serving import until

COMPLAINT = "What helps against my migraine?"
STOPPED = "Stopped before an answer; this message is not remembered."
STATES = ["loading", "retrieving", "waiting", "reading", "writing"]


class Held(ScriptedLLM):
    """A scripted LLM that can be held in the queue, before its first word and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.script = ["Two ", "plus ", "two ", "is four."]
        self.before: list[dict[str, Any]] = []
        self.go = {state: asyncio.Event() for state in STATES}
        for each in self.go.values():
            each.set()

    async def _stream(self) -> ChatResponseAsyncGen:
        nothing = ChatMessage(role="assistant", content="")
        for raw in self.before:
            yield ChatResponse(message=nothing, delta="", raw={"tokens": 0, **raw})
        await self.go["waiting"].wait()
        await self.go["reading"].wait()
        async for number, response in _count(super()._stream()):
            if number == 2:
                await self.go["writing"].wait()
            yield response


async def _count(stream: ChatResponseAsyncGen) -> AsyncIterator[tuple[int, ChatResponse]]:
    number = 0
    async for response in stream:
        yield number, response
        number += 1


class Screen:
    """What the page makes of the server's events: steps as a tree, in the order of arrival."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, Any]] = {}
        self.buttons: dict[str, dict[str, Any]] = {}
        self.panel: dict[str, str] = {}
        self.picker: dict[str, str] = {}
        self.loading = False
        self.seen: list[str] = []  # every text that was ever shown
        self.put: Callable[[dict[str, Any]], None] = lambda button: None  # a button on the screen

    async def emit(self, event: str, data: Any) -> None:
        self._show(event, data)  # the server, too, has put it into a queue before it waits
        await asyncio.sleep(0)

    def _show(self, event: str, data: Any) -> None:
        match event:
            case "new_message" | "stream_start":
                if data["id"] in self.steps:
                    self.steps[data["id"]] |= data
                elif not data.get("parentId") or data["parentId"] in self.steps:
                    self.steps[data["id"]] = dict(data)
            case "update_message" if data["id"] in self.steps:
                self.steps[data["id"]] |= data
            case "stream_token" if data["id"] in self.steps:
                self.steps[data["id"]]["output"] += data["token"]
            case "delete_message":
                self.remove(data["id"])
            case "action":
                self.buttons[data["id"]] = data
                self.put(data)
            case "remove_action":
                self.buttons.pop(data["id"], None)
            case "resume_thread":
                self.steps = {}
                for step in data["steps"]:
                    self._show("new_message", step)
            case "task_start" | "task_end":
                self.loading = event == "task_start"
            case "chat_settings":
                self.panel = {each["id"]: each["initial"] for each in data}
            case "set_modes":
                self.picker = {
                    mode["id"]: next(o["id"] for o in mode["options"] if o["default"])
                    for mode in data
                }
        self.seen += [text for _, text in self.messages() if text not in self.seen]

    def remove(self, id: str) -> None:
        for below in [key for key, step in self.steps.items() if step.get("parentId") == id]:
            self.remove(below)
        self.steps.pop(id, None)

    def _tree(self, parent: str | None = None) -> list[dict[str, Any]]:
        here = [s for s in self.steps.values() if (s.get("parentId") or None) == parent]
        return [each for step in here for each in [step, *self._tree(step["id"])]]

    def messages(self) -> list[tuple[str, str]]:
        """Type and text of what can be read, in its order."""
        return [(s["type"], s["output"]) for s in self._tree() if s["type"].endswith("message")]

    def retries(self) -> list[str]:
        """The texts that have "Try again" below them."""
        shown = [b["forId"] for b in self.buttons.values() if b["name"] == "retry"]
        return [self.steps[id]["output"] for id in shown if id in self.steps]


class Chat:
    """A session of the page, with everything in it but the browser and the models."""

    def __init__(self, screen: Screen, llm: Held, conversation: Conversation, kept: History):
        self.screen, self.llm, self.conversation, self.kept = screen, llm, conversation, kept
        self.ids = itertools.count()
        self.tasks: list[asyncio.Task[None]] = []
        self.sid = ""

    async def send(self, text: str, **more: Any) -> str:
        id = await self.begin(text, **more)
        await asyncio.sleep(0.02)
        return id

    async def begin(self, text: str, **more: Any) -> str:
        """Send, and come back before anything has been done about it."""
        id = str(uuid.uuid4())
        message = {"id": id, "type": "user_message", "output": text, "name": "User"}
        message |= {"createdAt": "2026-01-01T00:00:00Z", "threadId": "", **more}
        self.screen.steps[id] = dict(message)
        await chainlits.message(self.sid, cast(Any, {"message": message}))
        return id

    async def edit(self, id: str, text: str) -> None:
        steps = self.screen.steps
        after = list(steps)[list(steps).index(id) + 1 :]
        for later in after:  # the page does so by itself
            steps.pop(later, None)
        steps[id]["output"] = text
        edited = chainlits.edit_message(self.sid, cast(Any, {"message": steps[id]}))
        self.tasks.append(asyncio.create_task(edited))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self.screen.loading = False
        await sio.handlers["/"]["stop"](self.sid)

    async def retry(self) -> None:
        (button,) = [b for b in self.screen.buttons.values() if b["name"] == "retry"]
        init_ws_context(self.sid)
        self.conversation.retry(button["payload"]["message"])
        await asyncio.sleep(0)

    async def idle(self) -> None:
        """Until nothing runs; then the screen is whole, and memory and history say the same."""
        await until(lambda: bool(self.conversation._running))
        for _ in range(3):
            await until(lambda: all(task.done() for task in self.conversation._running))
            await asyncio.sleep(0.01)
        assert not self.screen.loading
        shown = self.screen.messages()
        thread = await self.thread()
        again = Screen()
        for step in thread["steps"]:
            await again.emit("new_message", step)
        assert again.messages() == shown
        assert [s for s in thread["steps"] if s["id"] not in self.screen.steps] == []
        assert threads.remembered(thread["steps"]) == self.memory()
        assert len(self.screen.retries()) == 1

    async def thread(self) -> ThreadDict:
        """What is stored."""
        thread = await self.kept.get_thread(WebsocketSession.require(self.sid).thread_id)
        assert thread is not None
        return thread

    async def resume(self, thread: ThreadDict) -> None:
        """The same thread in a session and on a screen that know nothing of it."""
        old = WebsocketSession.require(self.sid)
        self.screen = Screen()
        models, chosen = self.conversation._models, self.conversation._settings
        self.conversation = Conversation(models, chosen, sample=False)
        self.sid = self.connect(old.user, old.thread_id)
        WebsocketSession.require(self.sid).has_first_interaction = True
        await end_elsewhere(thread)
        await resume.resume(thread)
        await self.conversation.restore(thread)
        for step in thread["steps"]:
            if "message" in step["type"]:
                chat_context.add(cl.Message.from_dict(step))
            await self.screen.emit("new_message", step)

    def connect(self, user: Any, thread_id: str | None = None) -> str:
        sid = str(uuid.uuid4())
        session = WebsocketSession(
            id=str(uuid.uuid4()),
            socket_id=sid,
            emit=cast(Any, self.screen.emit),
            emit_call=cast(Any, None),
            user_env={},
            client_type="webapp",
            user=user,
            thread_id=thread_id,
        )
        init_ws_context(session)
        cl.user_session.set(SESSIONS, self.conversation)
        return sid

    def memory(self) -> list[tuple[str, str]]:
        if (engine := self.conversation._engine) is None:
            return []
        return [(m.role.value, m.content or "") for m in engine.chat_history]


@pytest.fixture
async def chat(
    embed_questions: Embed,
    sample_index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Chat]:
    chosen = settings.load(home=tmp_path, max_tokens=100, retrieval="always")
    llm, screen = Held(), Screen()
    store = IndexStore.open(sample_index, EMBEDDED)

    class Retriever(DoctorReplyRetriever):
        async def _aretrieve(self, query_bundle: Any) -> Any:
            await llm.go["retrieving"].wait()
            return await super()._aretrieve(query_bundle)

    class Models:
        @property
        def loaded(self) -> bool:
            return llm.go["loading"].is_set()

        async def agent(self) -> Agent:
            await llm.go["loading"].wait()
            retriever = Retriever(store, embed_questions, chosen.sources, -1.0)
            engine = Engine("scripted", "scripted", base=llm, fine_tuned=None)
            turns = TurnEmbedding(embed_questions)
            return Agent(chosen, engine, turns, retriever)

    def nothing_urgent(texts: Sequence[str]) -> list[Verdict]:
        return [CALM for _ in texts]

    # No question here is an emergency; which ones are is tested elsewhere.
    monkeypatch.setattr("agent.safety.triage.verdicts", nothing_urgent)
    database.prepare(chosen)
    kept = History(database.connect_async(chosen))
    monkeypatch.setattr(chainlits_data, "_data_layer", kept)
    monkeypatch.setattr(chainlits_data, "_data_layer_initialized", True)
    monkeypatch.setitem(sio.handlers["/"], "stop", None)
    for callback in ("message", "chat_start", "settings_update", "window_message"):
        monkeypatch.setattr(config.code, f"on_{callback}", None)
    opened = Chat(screen, llm, Conversation(cast(Any, Models()), chosen, sample=False), kept)

    @chainlit_hooks.on_message
    async def answer(message: cl.Message) -> None:
        asked_of_all = compare.commanded(message)
        answering = compare.by_command if asked_of_all else one_turn
        await opened.conversation.answer(message, answering)

    @chainlit_hooks.on_stop
    async def stop() -> None:
        opened.conversation.stop(chainlit_hooks.newest_task())

    @chainlit_hooks.on_settings_update
    async def confirm(_: dict[str, Any]) -> None:
        await choices.show_picker(chosen)

    opened.sid = opened.connect(await kept.create_user(User("medraft")))
    await choices.show(chosen)
    yield opened
    await WebsocketSession.require(opened.sid).delete()
    await kept.close()


QUESTION = ("user_message", COMPLAINT)
ANSWERED = "Two plus two is four."
ANSWER = ("assistant_message", ANSWERED)
UNSOURCED = re.compile(
    r" \[\\\[\u2013\\\]\]\(#no-source [^)]*\)"
)  # the mark behind it: no source says so


def said(chat: Chat) -> list[str]:
    """What stands on the screen, one line a message."""
    texts = [UNSOURCED.sub("", text) for _, text in chat.screen.messages()]
    return [text.strip().split("\n")[-1] for text in texts]


async def hold(chat: Chat, state: str) -> None:
    """Ask, and return when the turn is held in `state`."""
    chat.llm.before = [{"waiting": 2}, {"waiting": 1}] if state == "waiting" else []
    chat.llm.go[state].clear()
    await chat.send(COMPLAINT)
    reached: dict[str, Callable[[], bool]] = {
        "loading": lambda: any("being loaded" in text for text in chat.screen.seen),
        "retrieving": lambda: any(s["type"] == "retrieval" for s in chat.screen.steps.values()),
        "waiting": lambda: "1 answer is before yours." in chat.screen.seen,
        "reading": lambda: bool(chat.llm.prompts),
        "writing": lambda: any("Two plus" in text for text in chat.screen.seen),
    }
    await until(reached[state])


@pytest.mark.parametrize("state", STATES)
async def test_stop_and_another_try_in_every_state(chat: Chat, state: str) -> None:
    await hold(chat, state)
    await chat.stop()
    await chat.idle()
    question, *rest = said(chat)
    assert question == COMPLAINT
    if state == "writing":
        assert rest == ["Two plus", "Stopped. The conversation goes on from what was said so far."]
        assert chat.memory()[1][1].endswith("Two plus")
    else:
        assert rest == [STOPPED]
        assert chat.memory() == []
    assert chat.screen.retries() == rest[-1:]

    chat.llm.go[state].set()
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]
    assert [text.split("\n")[-1] for _, text in chat.memory()] == [COMPLAINT, ANSWERED]


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_click_counts_as_soon_as_there_is_something_to_click(
    chat: Chat, stopped: bool
) -> None:
    clicked: list[str] = []

    def click(shown: dict[str, Any]) -> None:
        if shown["name"] == "retry" and not clicked:
            clicked.append(shown["id"])
            chat.llm.go["reading"].set()
            chat.conversation.retry(shown["payload"]["message"])

    chat.screen.put = click
    if stopped:
        await hold(chat, "reading")
        await chat.stop()
    else:
        await chat.send(COMPLAINT)
    await until(lambda: bool(clicked))
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]
    assert len(chat.llm.prompts) == 2
    assert len(chat.memory()) == 2


@pytest.mark.parametrize("turns_of_the_loop", [0, 1, 2, 3, 5, 8, 13, 21, 34])
@pytest.mark.parametrize("way", ["new", "edited", "another try"])
async def test_stop_is_heard_from_the_first_moment(
    chat: Chat, way: str, turns_of_the_loop: int
) -> None:
    asked = ""
    if way != "new":
        asked = await chat.send(COMPLAINT)
        await chat.idle()
    chat.llm.go["reading"].clear()
    match way:
        case "new":
            await chat.begin(COMPLAINT)
        case "edited":
            await chat.edit(asked, COMPLAINT)
        case _:
            await chat.retry()
    await until(lambda: chat.screen.loading)
    for _ in range(turns_of_the_loop):
        await asyncio.sleep(0)
    await chat.stop()
    await until(lambda: said(chat)[-1] == STOPPED)
    await chat.idle()
    assert said(chat) == [COMPLAINT, STOPPED]
    assert chat.memory() == []
    chat.llm.go["reading"].set()
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


@pytest.mark.parametrize("state", STATES)
async def test_an_edit_in_every_state_is_answered_in_place(chat: Chat, state: str) -> None:
    await chat.send("Why do my knees creak?")
    await chat.idle()
    await hold(chat, state)
    asked = next(id for id, step in chat.screen.steps.items() if step["output"] == COMPLAINT)
    chat.llm.go[state].set()
    await chat.edit(asked, "And what helps against acne?")
    await until(lambda: said(chat)[-1] == ANSWERED and not chat.screen.loading)
    await chat.idle()
    there = ["Why do my knees creak?", ANSWERED, "And what helps against acne?", ANSWERED]
    assert said(chat) == there
    assert [text.split("\n")[-1] for _, text in chat.memory()] == there


async def test_an_edited_message_forgets_all_that_came_after_it(chat: Chat) -> None:
    first = await chat.send("Why do my knees creak?")
    await chat.idle()
    for text in ("Do I need an inhaler?", "Thank you"):
        await chat.send(text)
        await chat.idle()
    assert len(chat.memory()) == 6
    await chat.edit(first, COMPLAINT)
    await until(lambda: said(chat) == [COMPLAINT, ANSWERED] and not chat.screen.loading)
    await chat.idle()
    assert [text.split("\n")[-1] for _, text in chat.memory()] == [COMPLAINT, ANSWERED]
    system, question, *_ = chat.llm.prompts[-1]
    assert (system.role.value, question.role.value) == ("system", "user")
    assert COMPLAINT in (question.content or "")
    await chat.send("And at night?")
    await chat.idle()
    assert len(chat.memory()) == 4


async def test_a_page_that_begins_or_confirms_its_settings_ends_no_turn(chat: Chat) -> None:
    @chainlit_hooks.on_chat_start
    async def begin() -> None:
        await choices.show(chat.conversation._settings)

    await hold(chat, "retrieving")
    init_ws_context(chat.sid)
    await config.code.on_chat_start()
    await config.code.on_settings_update({})
    assert chat.screen.loading
    chat.llm.go["retrieving"].set()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


async def test_two_messages_sent_quickly_are_answered_one_after_the_other(chat: Chat) -> None:
    chat.llm.go["writing"].clear()
    await chat.send(COMPLAINT)
    await chat.send("Why do my knees creak?")
    await until(lambda: any("Two plus" in text for text in chat.screen.seen))
    assert len(chat.llm.prompts) == 1
    chat.llm.go["reading"].clear()
    chat.llm.go["writing"].set()
    await until(lambda: len(chat.llm.prompts) == 2)
    assert chat.screen.loading, "the second is being answered, and the page says so"
    chat.llm.go["reading"].set()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED, "Why do my knees creak?", ANSWERED]


async def test_a_burst_of_messages_is_answered_in_its_order(chat: Chat) -> None:
    questions = [f"Question {number}: why do my knees creak?" for number in range(5)]
    for question in questions:
        await chat.send(question)
    await until(lambda: len(chat.llm.prompts) == 5 and not chat.screen.loading)
    await chat.idle()
    assert said(chat)[::2] == questions
    assert said(chat)[1::2] == [ANSWERED] * 5
    assert len(chat.memory()) == 10


async def test_an_edit_spares_what_is_sent_after_it(chat: Chat) -> None:
    first = await chat.send("Why do my knees creak?")
    await chat.idle()
    await hold(chat, "writing")
    await chat.send("This one is in the queue.")
    await chat.edit(first, "And my hips?")
    await until(lambda: len(chat.conversation._turns._by_id) == 1)
    await chat.send("Thank you")
    chat.llm.go["writing"].set()
    await until(lambda: said(chat)[-1] == ANSWERED and not chat.screen.loading)
    await chat.idle()
    assert said(chat) == ["And my hips?", ANSWERED, "Thank you", ANSWERED]


async def test_stop_twice_ends_all_that_was_sent_and_leaves_it_whole(chat: Chat) -> None:
    await hold(chat, "writing")
    await chat.send("Why do my knees creak?")
    await chat.stop()
    await chat.stop()
    await chat.idle()
    assert said(chat) == [
        COMPLAINT,
        "Two plus",
        "Stopped. The conversation goes on from what was said so far.",
        "Why do my knees creak?",
        STOPPED,
    ]
    chat.llm.go["writing"].set()
    await chat.retry()
    await chat.idle()
    assert said(chat)[-2:] == ["Why do my knees creak?", ANSWERED]


async def test_what_holds_for_a_moment_is_shown_and_never_stored(chat: Chat) -> None:
    chat.llm.before = [{"waiting": 3}, {"notice": "llama is loaded now."}]
    chat.llm.go["loading"].clear()
    chat.llm.go["reading"].clear()
    await chat.send(COMPLAINT)
    await until(lambda: any("being loaded" in text for text in chat.screen.seen))
    chat.llm.go["loading"].set()
    await until(lambda: any("Another model" in text for text in chat.screen.seen))
    assert "3 answers are before yours." in chat.screen.seen
    thread = await chat.thread()
    assert [s["output"] for s in thread["steps"] if s["type"].endswith("message")] == [COMPLAINT]
    chat.llm.go["reading"].set()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


async def test_an_error_can_be_tried_again(chat: Chat) -> None:
    chat.llm.script = [AgentError("The engine failed.")]
    await chat.send(COMPLAINT)
    await chat.idle()
    assert chat.screen.messages() == [QUESTION, ("system_message", "The engine failed.")]
    assert chat.memory() == []
    chat.llm.script = ["Two ", AgentError("The engine failed.")]
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, "Two", "The engine failed."]
    chat.llm.script = ["Two ", "plus ", "two ", "is four."]
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


async def test_a_resumed_conversation_is_edited_and_tried_again(chat: Chat) -> None:
    first = await chat.send("Why do my knees creak?")
    await chat.idle()
    await chat.send(COMPLAINT)
    await chat.idle()
    await chat.resume(thread := await chat.thread())
    assert said(chat) == ["Why do my knees creak?", ANSWERED, COMPLAINT, ANSWERED]
    assert chat.screen.retries() == [thread["steps"][-1]["output"]]
    await chat.retry()
    await chat.idle()
    assert said(chat) == ["Why do my knees creak?", ANSWERED, COMPLAINT, ANSWERED]
    assert len(chat.llm.prompts[-1]) == len(chat.llm.prompts[1])
    await chat.edit(first, "And my hips?")
    await until(lambda: len(chat.llm.prompts) == 4 and not chat.screen.loading)
    await chat.idle()
    assert said(chat) == ["And my hips?", ANSWERED]


async def test_a_page_loaded_again_in_mid_answer_stops_it_and_can_try_again(chat: Chat) -> None:
    await hold(chat, "writing")
    await chat.resume(await chat.thread())
    stopped = "Stopped. The conversation goes on from what was said so far."
    assert said(chat) == [COMPLAINT, "Two plus", stopped]
    chat.llm.go["writing"].set()
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


async def test_what_runs_in_a_conversation_that_is_left_is_stopped(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.code, "on_chat_end", None)
    chainlit_hooks.on_leaving(lambda: chat.conversation.end())
    await hold(chat, "writing")
    left = WebsocketSession.require(chat.sid)
    init_ws_context(left)
    await config.code.on_chat_end()  # as of a connection that is lost, and may be back
    assert not chat.conversation.idle
    await sio.handlers["/"]["clear_session"](chat.sid)
    await sio.handlers["/"]["disconnect"](chat.sid)
    assert chat.conversation.idle
    thread = await chat.kept.get_thread(left.thread_id)
    assert thread is not None
    told = [text.strip().split("\n")[-1] for _, text in threads.remembered(thread["steps"])]
    assert told == [COMPLAINT, "Two plus"]
    chat.sid = chat.connect(left.user, left.thread_id)


async def test_what_comes_after_an_answer_that_was_taken_over_keeps_its_place(chat: Chat) -> None:
    first = await chat.send(COMPLAINT, command=say("compare.all_four"))
    await chat.idle()
    second = await chat.send("Do I need an inhaler?")
    await chat.idle()
    compared, later = chat.conversation.known(first), chat.conversation.known(second)
    assert compared and later and (compared.before, later.before) == (0, 0)
    init_ws_context(chat.sid)
    await chat.conversation.remember(compared, "Rest in a dark room.")
    assert (compared.before, later.before) == (0, 2)


async def test_a_turn_that_ended_with_the_server_can_be_tried_again(chat: Chat) -> None:
    await hold(chat, "loading")
    left = await chat.thread()
    await chat.conversation.end()
    for step in (await chat.thread())["steps"]:
        if step["id"] not in [each["id"] for each in left["steps"]]:
            await chat.kept.delete_step(step["id"])
    chat.llm.go["loading"].set()
    await chat.resume(left)
    assert said(chat) == [COMPLAINT, "This message was not answered; it is not remembered."]
    await chat.retry()
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]


async def test_an_answer_keeps_what_is_known_of_it(chat: Chat) -> None:
    await chat.send(COMPLAINT)
    await chat.idle()
    thread = await chat.thread()
    about = thread["steps"][-1]["metadata"]
    assert (about["behaviour"], about["llm"], about["retrieval"]) == ("RAG", "base", "always")
    assert about["route"]["reason"] == "retrieval is set to always"
    assert about["timing"]["tokens"] == 4
    assert about["answer"].endswith(ANSWERED)
    assert about["unsourced"] == [len(about["answer"])]
    assert UNSOURCED.search(thread["steps"][-1]["output"])
    assert len(about["sources"]) == 2
    (step,) = [s for s in thread["steps"] if s["type"] == "retrieval"]
    for fact in ("Behaviour: RAG", "retrieval is set to always (score ", "Sources: 2"):
        assert fact in step["output"]


async def test_an_answer_for_which_nothing_fitted_is_the_llms_alone(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: Any, query: Any) -> list[Any]:
        return []

    monkeypatch.setattr(DoctorReplyRetriever, "_aretrieve", nothing)
    await chat.send(COMPLAINT)
    await chat.idle()
    alone = "No doctor's reply fitted: this answer is base alone, without sources."
    assert chat.screen.messages() == [QUESTION, ("system_message", alone), ANSWER]
    thread = await chat.thread()
    about = thread["steps"][-1]["metadata"]
    assert (about["behaviour"], about["avatarName"]) == ("base", "base")
    assert about["route"]["retrieve"] and about["sources"] == []
    (step,) = [s for s in thread["steps"] if s["type"] == "retrieval"]
    assert step["name"] == "base" and "Behaviour: base" in step["output"]


async def test_what_makes_the_screen_whole_ends_however_often_stop_is_pressed() -> None:
    done: list[int] = []

    async def work() -> None:
        for step in range(5):
            await asyncio.sleep(0)
            done.append(step)

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [*range(5)]


async def test_the_panel_and_the_picker_show_the_same_choices(chat: Chat) -> None:
    screen = chat.screen
    before = {"llm": "base", "retrieval": "always"}
    assert screen.picker == before and screen.panel.items() >= before.items()
    await chainlits.change_settings(chat.sid, screen.panel | {"retrieval": "auto"})
    assert screen.picker == {"llm": "base", "retrieval": "auto"}
    init_ws_context(chat.sid)
    chosen = chat.conversation._settings
    shown = {"llm": "LLM: base", "retrieval": "Retrieval: never"}
    await choices.picked({"medraft-modes": shown}, chosen)
    assert screen.panel["retrieval"] == "never"
    # A message that was sent before the picker showed what the panel had confirmed.
    await chainlits.change_settings(chat.sid, screen.panel | {"retrieval": "auto"})
    await chat.send(COMPLAINT, modes={"llm": "base", "retrieval": "never"})
    await chat.idle()
    assert any(s["name"] == "RAG" for s in screen.steps.values())
    for nonsense in (None, "x", {"medraft-modes": 1}, {"medraft-modes": {"llm": ["x"]}}):
        init_ws_context(chat.sid)
        await choices.picked(nonsense, chosen)
    assert choices.chosen(chosen) == ("base", "auto")
    await chainlits.change_settings(chat.sid, {"llm": ["x"], "retrieval": {}, "country": []})
    await chat.send(COMPLAINT)
    await chat.idle()
    assert chat.screen.messages()[-1][0] == "assistant_message"


@pytest.mark.parametrize("id", ["/data", "..", "", None, 7, "9F2C5E9B-6C6E-4A0B-8A5E-0E5D1B1F6A11"])
async def test_a_session_is_not_named_like_a_folder(
    monkeypatch: pytest.MonkeyPatch, id: object
) -> None:
    let_in: list[object] = []

    async def connect(sid: str, environ: Any, auth: dict[str, Any]) -> bool:
        let_in.append(auth["sessionId"])
        return True

    monkeypatch.setitem(sio.handlers["/"], "connect", connect)
    server_hooks.look_at_who_connects()
    handler = sio.handlers["/"]["connect"]
    with pytest.raises(ConnectionRefusedError):
        await handler("sid", {}, {"sessionId": id})
    browsers = str(uuid.uuid4())
    assert await handler("sid", {}, {"sessionId": browsers})
    assert let_in == [browsers]


@pytest.mark.parametrize("edited", [False, True])
async def test_a_turn_goes_on_when_a_lost_connection_is_back(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    handlers = sio.handlers["/"]
    for event in ("connect", "connection_successful"):
        monkeypatch.setitem(handlers, event, handlers[event])
    resume.mend_connections()
    assert sio.eio.max_http_buffer_size == resume.LONGEST
    if edited:
        id = await chat.send("What helps against fever?")
        await chat.idle()
    chat.llm.go["writing"].clear()
    if edited:
        await chat.edit(id, COMPLAINT)
    else:
        await chat.send(COMPLAINT)
    await until(lambda: "Two plus" in chat.screen.messages()[-1][1])
    chat.screen.loading = False  # as Chainlit says to every browser that comes back
    WebsocketSession.require(chat.sid).restored = True
    back = asyncio.create_task(handlers["connection_successful"](chat.sid))
    await until(lambda: chat.screen.loading)
    assert not back.done()
    chat.llm.go["writing"].set()
    await back
    await chat.idle()
    assert said(chat) == [COMPLAINT, ANSWERED]
