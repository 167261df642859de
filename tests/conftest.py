"""What the tests share: a real embedding model, and a small real index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.llms.weights import llama_cpp_file, transformers_directory
from agent.settings import ROOT
from index_store.build import Built, build
from index_store.cleaning import clean
from index_store.dataset import Dialogue
from index_store.embedding import EMBEDDED, load_embedding

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

DIALOGUES = [
    Dialogue(*texts)
    for texts in [
        (
            "Q. What helps against migraine?",
            "My head throbs on one side twice a month and light hurts.",
            "This sounds like migraine. Rest in a dark room, and take ibuprofen early.",
        ),
        (
            "Q. Why do my knees creak?",
            "I am 60 and my knees grind when I climb stairs.",
            "Creaking with pain on stairs points to wear of the joint. Strengthen the thighs.",
        ),
        (
            "Q. How is a bladder infection treated?",
            "It burns when I pass urine, and I have to go all the time.",
            "A urine test will confirm cystitis. Drink plenty; antibiotics clear it in days.",
        ),
        (
            "Q. My baby has a rash under the nappy, what can I do?",
            "She is five months old and her bottom is red and sore.",
            "Nappy rash heals with air, warm water instead of wipes, and a zinc cream.",
        ),
        (
            "Q. Is my blood pressure too high?",
            "The machine says 150 over 95 at most times.",
            "That is above the normal range. Measure for a week, cut down on salt, see your GP.",
        ),
        (
            "Q. Can I stop my antidepressant?",
            "I have taken sertraline for a year and feel well again.",
            "Never stop at once. Reduce the dose over weeks together with your doctor.",
        ),
        (
            "Q. What can I do about hay fever?",
            "Every May my eyes itch and my nose runs.",
            "An antihistamine and a steroid nasal spray, begun before the season, help most.",
        ),
        (
            "Q. Does my child need an inhaler?",
            "My son of six coughs at night and wheezes after running.",
            "Wheeze after exercise suggests asthma. A peak flow test comes first, then an inhaler.",
        ),
        (
            "Q. Why am I always tired?",
            "I sleep eight hours, have heavy periods, and feel worn out.",
            "Heavy periods cause iron deficiency. A blood count and ferritin will show it.",
        ),
        (
            "Q. How do I treat acne?",
            "I am 17 and have spots on my face and back.",
            "Benzoyl peroxide once a day for eight weeks is the usual first step.",
        ),
        (
            "Q. What causes heartburn at night?",
            "Acid comes up to my throat when I lie down.",
            "Reflux is worse lying flat. Raise the head of the bed and eat early.",
        ),
        (
            "Q. Is dupilumab an option?",
            "Creams no longer control the eczema in the crooks of my arms.",
            "It is used when creams fail, given as an injection every two weeks.",
        ),
    ]
]


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    """Twelve questions about twelve things."""
    return DIALOGUES


@pytest.fixture(scope="session")
def embedding() -> HuggingFaceEmbedding:
    """The embedding model that comes with medraft."""
    return load_embedding(EMBEDDED)


@pytest.fixture(scope="session")
def build_index() -> Callable[[list[Dialogue], Path], Built]:
    """Clean rows and build an index of them, with the model that comes with medraft."""

    def run(rows: list[Dialogue], directory: Path) -> Built:
        return build(*clean(rows), directory, EMBEDDED, source="rows.jsonl", progress=False)

    return run


@pytest.fixture(scope="session")
def sample_index(
    tmp_path_factory: pytest.TempPathFactory,
    build_index: Callable[[list[Dialogue], Path], Built],
) -> Path:
    """The directory of an index of `dialogues`. Read it; copy it to change it."""
    directory = tmp_path_factory.mktemp("index")
    build_index(DIALOGUES, directory)
    return directory


@pytest.fixture(scope="session")
def models_home() -> Path:
    """The MEDRAFT_HOME of this checkout, where the embedded weights are converted only once."""
    home = ROOT / ".medraft"
    llama_cpp_file(home / "models")
    transformers_directory(home / "models")
    return home


@pytest.fixture(scope="session")
def adapter(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the embedded model with random weights, as PEFT saves one."""
    checkpoint = transformers_directory(models_home / "models")
    return random_adapter(checkpoint, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def tiny_checkpoint(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights, in the Hub's layout."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(transformers_directory(models_home / "models"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    directory = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny Llama with random weights."""
    return random_adapter(tiny_checkpoint, tmp_path_factory.mktemp("tiny-adapter"))


def random_adapter(checkpoint: Path, directory: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    get_peft_model(model, config).save_pretrained(directory)
    return directory
