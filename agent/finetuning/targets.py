"""The answer that an example teaches: drawn from the replies that stand in its own prompt.

Owns how it is drawn, for any data set and without another LLM. It is made of the replies' sentences
that answer this question best, each with the number of its reply, between a doctor's opening and
close; or, where none answers it, of the plain words that the replies are about other problems, safe
advice and a question back. So the one thing that helps in learning it is to read the documents
(RAFT, Zhang et al. 2024, arXiv 2403.10131, whose targets quote them).

How well a sentence answers is measured against the question and against the doctor's true reply
to it: the mean of its cosine to the question and to the nearest sentence of that reply. What
belongs to the other patient is left out (`agent.chat.particulars`).

An answer without documents keeps the doctor's own words, but for what nobody bears there: doses,
"stop taking it" (`agent.chat.claims`) and whatever is said of a medicine.

Knows nothing of how documents are found, nor of prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.chat.claims import Borne
from agent.chat.medicines import medicines
from agent.chat.particulars import may_be_said
from agent.chat.support import sentences
from index_store.dataset import Dialogue
from index_store.embedding import Embed

FIT = 0.38  # from which score on a sentence answers the question
FEWEST, MOST = 2, 4  # sentences of an answer
WORDS = range(5, 41)  # of a sentence that can be quoted
NONE = "The replies that I found are about other problems"

# An answer begins in few ways, and none as a refusal does: with more of them each would be rarer
# than the refusal, and a greedy LLM would refuse whatever it is shown.
OPENINGS = (
    "Doctors have told others with a similar problem what may help you as well.",
    "Doctors have answered similar questions.",
)
CLOSES = (
    "If it does not settle or gets worse, please see a doctor.",
    "A doctor who examines you can say more.",
    "Please see your doctor if this does not improve.",
    "These replies went to others: your own doctor can say what holds for you.",
    "I hope this helps; write again if anything changes.",
)
NONE_GOES_ON = (
    ", so I cannot answer from them.",
    ", and I would rather not guess.",
    ", and none of them fits what you describe.",
)
NONE_ADVICE = (
    "Please see a doctor if it lasts or gets worse, and at once if you feel very ill.",
    "A doctor who examines you can tell what it is; do not wait if it gets worse quickly.",
    "Please ask your doctor or a pharmacist, and sooner if it gets worse.",
)
NONE_QUESTIONS = (
    "Can you tell me more: since when, how bad it is, and what else you have noticed?",
    "How long have you had it, and does anything make it better or worse?",
    "How old are you, when did it begin, and do you take any medicines?",
)
NO_CLAIM = (
    "Which medicine and how much of it, I cannot say without a source: please ask a pharmacist or "
    "your doctor."
)

_MEDICINE = re.compile(
    r"\b(?:medic(?:ine|ation)s?|tablets?|pills?|dos(?:e|age)s?|drugs?|antibiotics?|drops|creams?"
    r"|syrup|spray|painkillers?|remed(?:y|ies)|prescri\w+|what (?:can|should|could|do) i take)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Target:
    """An answer, and which documents it cites, from 1; none where it says that nothing fits."""

    text: str
    cited: tuple[int, ...]


class TargetMaker:
    """Draws answers from documents; `embed` is asked once for each text."""

    def __init__(self, embed: Embed, draw: random.Random) -> None:
        self._embed, self._draw = embed, draw
        self._known: dict[str, tuple[list[str], np.ndarray]] = {}

    def answer(
        self,
        message: str,
        question: np.ndarray,
        reply: str,
        documents: Sequence[Dialogue],
        altered: Callable[[str], str] = str,
    ) -> Target:
        """The target of a prompt that holds `documents` in this order.

        `question` is the unit vector of `message`, shape (d,); `reply` the doctor's own to it;
        `altered` changes a sentence as the prompt's documents were changed.
        """
        _, near = self._sentences(reply)
        found: list[tuple[float, int, int, str]] = []
        for number, document in enumerate(documents, start=1):
            said, vectors = self._sentences(document.doctor)
            if not said or not len(near):
                continue
            scores = (vectors @ question + (vectors @ near.T).max(axis=1)) / 2
            found += [
                (float(score), number, place, sentence)
                for place, (sentence, score) in enumerate(zip(said, scores, strict=True))
                if score >= FIT
                and len(sentence.split()) in WORDS
                and may_be_said(sentence, document.letter, message)
            ]
        best = sorted(found, reverse=True)[: self._draw.randint(FEWEST + 1, MOST)]
        if len(best) < FEWEST:
            return self.none()
        first = best[0][1]
        best.sort(key=lambda each: (each[1] != first, each[1], each[2]))
        quoted = [f"{altered(sentence)[:-1]} [{number}]." for _, number, _, sentence in best]
        text = " ".join([self._draw.choice(OPENINGS), *quoted, self._draw.choice(CLOSES)])
        return Target(text, tuple(sorted({number for _, number, _, _ in best})))

    def none(self) -> Target:
        """That no document fits, with advice that is always safe and a question back."""
        pick = self._draw.choice
        said = f"{NONE}{pick(NONE_GOES_ON)} {pick(NONE_ADVICE)} {pick(NONE_QUESTIONS)}"
        return Target(said, ())

    def _sentences(self, text: str) -> tuple[list[str], np.ndarray]:
        if text not in self._known:
            said = [text[start:end] for start, end in sentences(text)]
            self._known[text] = said, self._embed(said) if said else np.empty((0, 0))
        return self._known[text]


def borne_alone(reply: str, asked: Sequence[str]) -> str:
    """A reply without the sentences that the check of claims would not let through, no reply being
    shown, and without those that name a medicine, even the patient's own: what nobody may say, or
    can know alone, nobody should learn to say. Who wrote of a medicine is told so, by NO_CLAIM at
    the end: with more after it, or where nobody spoke of one, a small LLM says it over and over."""
    borne, paragraphs, left_out = Borne([], asked), [], False
    for paragraph in reply.split("\n\n"):
        said = [paragraph[start:end] for start, end in sentences(paragraph)]
        kept = [each for each in said if not (borne.unborne(each) or medicines(each))]
        left_out = left_out or len(kept) < len(said)
        paragraphs.append(" ".join(kept))
    whole = "\n\n".join(filter(None, paragraphs))
    question = "\n".join(asked)
    if left_out and (not whole or _MEDICINE.search(question) or medicines(question)):
        whole = f"{whole} {NO_CLAIM}".strip()
    return whole
