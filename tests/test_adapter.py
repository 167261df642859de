"""The adapter that ships: that it is what its card says, and serves beside the base LLM."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from agent import settings
from agent.behaviour import LLMChoice, Retrieval
from agent.chat import loading
from agent.chat.engine import PatientChatEngine
from agent.chat.events import Finished, Routed
from agent.chat.loading import Agent
from agent.llms import engines, peft_adapter
from agent.llms.choice import SHIPPED_ADAPTER
from agent.llms.embedded import transformers_directory
from agent.templates import render
from index_store.cleaning import clean
from index_store.dataset import Dialogue, read_rows
from index_store.device import multiplies_bf16
from index_store.split import split

RECORD = json.loads((SHIPPED_ADAPTER / "training.json").read_text("utf-8"))
ACNE = "Hello doctor, I have bad acne. How do I get rid of it?"


@pytest.fixture(scope="module")
def held_out() -> list[Dialogue]:
    """Nine patients whom no training has seen."""
    return [d for d in clean(read_rows("sample"))[0] if split(d.patient) == "test"][::8]


@pytest.fixture(scope="module")
def agent(models_home: Path, sample_index: Path) -> Agent:
    values = {"home": models_home, "index_dir": sample_index, "engine": "llama_cpp"}
    return loading.load(settings.load(**values, temperature=0, min_relevance=0.01))


def test_it_is_a_plain_lora_of_the_embedded_model_and_small(models_home: Path) -> None:
    found = peft_adapter.read(SHIPPED_ADAPTER)
    checkpoint = str(transformers_directory(models_home / "models"))
    found.check("the embedded model", peft_adapter.linear_modules(checkpoint))
    assert {sizes["A"][0] for sizes in found.sizes.values()} <= set(range(1, 17))
    assert sum(path.stat().st_size for path in SHIPPED_ADAPTER.iterdir()) <= 10_000_000
    config = json.loads((SHIPPED_ADAPTER / peft_adapter.CONFIG).read_text("utf-8"))
    assert config["base_model_name_or_path"] == RECORD["model"] == "SmolLM2-135M-Instruct"


def test_its_record_says_how_to_repeat_it() -> None:
    assert RECORD["examples"]["source"] == "sample"
    assert RECORD["examples"]["limit"] is None
    assert RECORD["training"]["rank"] <= 16
    assert RECORD["best_validation_loss"] < RECORD["history"][0]["validation_loss"]


def test_it_reads_held_out_replies_better_than_the_base(
    models_home: Path, held_out: list[Dialogue]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = transformers_directory(models_home / "models")
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    model = PeftModel.from_pretrained(base, str(SHIPPED_ADAPTER), adapter_name="doctor")
    losses: dict[str, list[float]] = {}
    for name in ("__base__", "doctor"):
        losses[name] = []
        for dialogue in held_out[::2]:
            asked = [
                {"role": "system", "content": render("system")},
                {"role": "user", "content": dialogue.patient},
            ]
            said = [*asked, {"role": "assistant", "content": dialogue.doctor}]
            head = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
            ids = torch.tensor([tokenizer.apply_chat_template(said)["input_ids"]])
            labels = ids.clone()
            labels[:, : len(head)] = -100
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, multiplies_bf16()):
                loss = model(input_ids=ids, labels=labels, adapter_names=[name]).loss
            losses[name].append(float(loss))
    means = {name: math.exp(sum(values) / len(values)) for name, values in losses.items()}
    assert means["doctor"] < 0.7 * means["__base__"], means


async def test_nearly_all_its_answers_end_by_themselves_and_do_not_go_round(
    models_home: Path, held_out: list[Dialogue]
) -> None:
    tuned = engines.load(settings.load(engine="llama_cpp", home=models_home)).llm("fine-tuned")

    async def answer(dialogue: Dialogue) -> tuple[int, str]:
        messages = [
            ChatMessage(role="system", content=render("system")),
            ChatMessage(role="user", content=dialogue.patient),
        ]
        tokens, text = 0, ""
        stream = await tuned.astream_chat(messages, max_tokens=256, temperature=0)
        async for response in stream:
            tokens, text = (response.raw or {})["tokens"], response.message.content or ""
        return tokens, text

    endless, round_and_round = [], []
    for tokens, text in await asyncio.gather(*map(answer, held_out)):
        words = text.lower().split()
        runs = [tuple(words[i : i + 8]) for i in range(len(words) - 7)]
        if tokens == 256:
            endless.append(text)
        if len(runs) > len(set(runs)):
            round_and_round.append(text)
    assert len(held_out) == 9
    assert len(endless) <= 1 and len(round_and_round) <= 2, [*endless, *round_and_round]


async def say(engine: PatientChatEngine, message: str, llm: LLMChoice) -> tuple[str, str]:
    """Behaviour and answer."""
    engine.llm = llm
    name, answer = "", ""
    async with aclosing(engine.turn(message)) as events:
        async for event in events:
            if isinstance(event, Routed):
                name = event.behaviour or ""
            if isinstance(event, Finished):
                answer = event.answer
    return name, answer


@pytest.mark.parametrize(("retrieval", "expected"), [("never", "fine-tuned"), ("always", "RAFT")])
async def test_it_answers_with_and_without_documents(
    agent: Agent, retrieval: Retrieval, expected: str
) -> None:
    engine = agent.conversation()
    engine.retrieval = retrieval
    name, answer = await say(engine, ACNE, "fine-tuned")
    assert name == expected
    assert 20 < len(answer.split()) < 200
    assert answer.rstrip("\"')").endswith((".", "!", "?"))


async def test_base_and_fine_tuned_alternate_side_by_side(agent: Agent) -> None:
    questions = [ACNE, "What helps against migraine?", "My knee hurts after running."]
    llms: list[LLMChoice] = ["base", "fine-tuned"]

    async def answer(question: str, llm: LLMChoice) -> str:
        engine = agent.conversation()
        engine.retrieval = "never"
        engine.sampling = replace(engine.sampling, max_tokens=24)
        return (await say(engine, question, llm))[1]

    async def talk(first: int) -> list[tuple[str, LLMChoice, str]]:
        turns = [(q, llms[(first + place) % 2]) for place, q in enumerate(questions * 2)]
        return [(q, llm, await answer(q, llm)) for q, llm in turns]

    alone = {(q, llm): await answer(q, llm) for q in questions for llm in llms}
    assert all(alone[q, "base"][:15] != alone[q, "fine-tuned"][:15] for q in questions)
    both = [turn for turns in await asyncio.gather(talk(0), talk(1)) for turn in turns]
    # In one batch the last bits differ, and a near tie may fall the other way, once of six times.
    for llm in llms:
        same = [said[:15] == alone[q, by][:15] for q, by, said in both if by == llm]
        assert len(same) == 6 and sum(same) >= 5, (llm, alone, both)
