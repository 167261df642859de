"""What is measured of an answer: which metrics there are, what each means, and each answer's value.

Owns the metrics. Knows nothing of how answers come about, nor of means and intervals.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

LOOP, COPY = 8, 5  # words


@dataclass(frozen=True)
class Metric:
    """A metric's key, its title, which direction is better, its form, and what it is."""

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    form: str
    about: str


METRICS = (
    Metric(
        "similarity",
        "similarity",
        "higher",
        ".3f",
        "cosine of answer and reference reply, by the embedding model",
    ),
    Metric("rouge_l", "ROUGE-L", "higher", ".3f", "F1 of the longest common subsequence of words"),
    Metric("chrf", "chrF", "higher", ".1f", "F-score of character n-grams, 0 to 100"),
    Metric(
        "reference_loss",
        "loss of the reference",
        "lower",
        ".3f",
        "nats per token of the doctor's reply after the same prompt; perplexity is its exponential",
    ),
    Metric(
        "supported",
        "supported",
        "higher",
        ".1%",
        "share of its claims that a retrieved reply supports (agent/evaluation/grounding.py)",
    ),
    Metric(
        "citation_precision",
        "citation precision",
        "higher",
        ".1%",
        "share of its citations whose reply supports their sentence",
    ),
    Metric(
        "citation_recall",
        "citation recall",
        "higher",
        ".1%",
        "share of its claims that a cited reply supports",
    ),
    Metric(
        "leaking",
        "leaks",
        "lower",
        ".1%",
        "share of its sentences that say what belongs to another patient",
    ),
    Metric(
        "borne",
        "borne",
        "higher",
        ".1%",
        "share of its doses and medicines that a retrieved reply or the patient names",
    ),
    Metric(
        "copied",
        "copied",
        "lower",
        ".1%",
        f"share of words in runs of {COPY} or more that stand in a retrieved reply",
    ),
    Metric("repeats", "repeats itself", "lower", ".1%", f"says a run of {LOOP} words twice"),
    Metric("ended", "ended by itself", "higher", ".1%", "the LLM found the end, nobody cut it"),
    Metric("words", "words", None, ".0f", "length of the answer"),
    Metric("first_token", "first token", "lower", ".2f", "seconds until the answer begins"),
    Metric("total", "whole answer", "lower", ".2f", "seconds until it has ended"),
    Metric("tokens", "answer tokens", None, ".0f", "tokens written"),
    Metric("cost", "prompt and answer tokens", "lower", ".0f", "tokens read and written"),
    Metric("correctness", "correctness", "higher", ".2f", "the judge's mark, 1 to 5"),
    Metric(
        "faithfulness",
        "faithfulness",
        "higher",
        ".1%",
        "the judge finds the answer in the retrieved replies",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L F1, 0 to 1, of stemmed words (Lin 2004, the `rouge-score` package, whose own words
    are of the letters a to z alone)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Stems())
    return [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]


class _Stems:
    """Words as `rouge-score` has them, in any script."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())
        return [self._stem(word) if len(word) > 3 else word for word in words]


def chrf(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF2, 0 to 100 (Popović 2015, the `sacrebleu` package)."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    return [
        scorer.sentence_score(answer, [reference]).score
        for answer, reference in zip(answers, references, strict=True)
    ]


def similarity(
    embedding: HuggingFaceEmbedding, answers: Sequence[str], references: Sequence[str]
) -> list[float]:
    """Cosine, -1 to 1, of each answer and its reference; an empty answer has 0."""
    from index_store.embedding import embed_texts

    both = zip(
        answers,
        embed_texts(embedding, answers),
        embed_texts(embedding, references),
        strict=True,
    )
    return [float(one @ other) if answer.strip() else 0.0 for answer, one, other in both]


def word_tokens(text: str) -> list[str]:
    """The words of a text as tokens: in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def repeats(words: Sequence[str]) -> bool:
    """Whether a run of LOOP words comes twice."""
    runs = [tuple(words[i : i + LOOP]) for i in range(len(words) - LOOP + 1)]
    return len(set(runs)) < len(runs)


def share_copied(words: Sequence[str], documents: Sequence[str]) -> float:
    """Share of words that stand in a run of COPY or more that also stands in a document."""
    known = set()
    for document in documents:
        there = word_tokens(document)
        known |= {tuple(there[i : i + COPY]) for i in range(len(there) - COPY + 1)}
    copied: set[int] = set()
    for start in range(len(words) - COPY + 1):
        if tuple(words[start : start + COPY]) in known:
            copied |= set(range(start, start + COPY))
    return len(copied) / max(1, len(words))
