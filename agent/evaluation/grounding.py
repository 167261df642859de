"""Whether an answer stands on the replies that it was shown, sentence by sentence.

Owns the measures, which are those of the field on our own means of comparing texts
(agent/chat/support.py). A *claim* is a sentence that could be wrong: neither courtesy, nor a
question, nor the advice to see someone (ASTRID, Chowdhury et al. 2025, arXiv 2501.08208). Citation
recall is the share of claims that their cited replies support, precision the share of citations
that support their sentence (ALCE, Gao et al. 2023, arXiv 2305.14627; here a citation is right only
if it supports alone). A sentence *leaks* if it says what belongs to the patient that the reply was
written to (agent/chat/particulars.py, whose rules choose what the embedded LLM reads and what is
learned from, so that the figure flatters it). Doses and medicines, as the check of claims
reads them, are *borne* if a shown reply or the patient names them.

Knows nothing of how answers come about, nor of means over questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent.chat.claims import Facts
from agent.chat.gate import Ended, Gate
from agent.chat.particulars import of_another
from agent.chat.support import sentences, support
from index_store.embedding import Embed

_COURTESY = re.compile(
    r"\b(?:thank|thanks|sorry|welcome|i (?:understand|hope|am glad|cannot|can't|would rather)"
    r"|good that you ask|write again|take care|best wishes|i wish you|your worry"
    r"|doctors have (?:answered|told)|here is what|replies (?:that i found|went to|were written)"
    r"|say without a source)\b",
    re.IGNORECASE,
)
_SEE_SOMEONE = re.compile(
    r"\b(?:see|ask|call|ring|phone|contact|visit|consult|tell|speak (?:to|with)|talk (?:to|with)"
    r"|check with|go to|make an appointment with|examine[sd]?|seen by)\b[^.;]{0,40}"
    r"\b(?:doctor|gp|pharmacist|hospital|ambulance|nurse|midwife|clinic|emergency|dentist|someone"
    r"|specialist)s?\b|\bdoctor who examines you\b",
    re.IGNORECASE,
)
ADVICE_WORDS = 20  # up to which a sentence that sends to someone says nothing else
_REFUSES = re.compile(
    r"\babout other problems\b"
    r"|\b(?:none(?: of (?:the|these|them)\b[^.]{0,30})?|no repl(?:y|ies)) "
    r"(?:fit|match|appl|answer|cover|address|mention)(?:s|es|y|ies)?\b"
    r"|\brepl(?:y|ies)\b[^.]{0,40}\bdo(?:es)?(?: not|n['\u2019]t)(?: \w+)?"
    r" (?:fit|answer|cover|address|mention|contain|provide)\b"
    r"|(?:\bnot|n['\u2019]t) (?:covered|mentioned|addressed) (?:in|by) (?:the|these)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Grounding:
    """Counts of one answer: claims, of them supported by any reply, by the cited ones; citations,
    of them right; sentences that leak, of all; doses and medicines, of them borne; refusal."""

    claims: int
    supported: int
    cited: int
    citations: int
    right: int
    sentences: int
    leaking: int
    named: int
    borne: int
    refuses: bool


def grounding(
    answer: str, message: str, replies: Sequence[str], letters: Sequence[str], embed: Embed
) -> Grounding:
    """Of an answer to `message` that was shown `replies`, numbered from 1, to other `letters`.

    Embeds sentences: call it off the event loop.
    """
    asked = "\n".join(letters)
    shown = "\n".join([*replies, message])
    counts = dict.fromkeys(
        ("claims", "supported", "cited", "citations", "right", "sentences", "leaking"), 0
    )
    told = _told(answer)
    for sentence, cited in told:
        by = {n for n, reply in enumerate(replies, 1) if _supports(sentence, reply, embed)}
        counts["sentences"] += 1
        counts["citations"] += len(cited)
        counts["right"] += len(cited & by)
        if is_claim(sentence):
            counts["claims"] += 1
            counts["supported"] += bool(by)
            counts["cited"] += bool(cited & by)
        counts["leaking"] += not is_courtesy(sentence) and of_another(sentence, asked, message)
    things = named("\n".join(sentence for sentence, _ in told))
    return Grounding(
        **counts,
        named=len(things),
        borne=len(things & named(shown)),
        refuses=refuses(answer),
    )


def _told(answer: str) -> list[tuple[str, set[int]]]:
    """The sentences without their citations, and which replies each cites, as a conversation reads
    them: before its full stop or behind it, [1][2] or [1, 2]."""
    gate = Gate(lambda begun: True)
    ended = [each for each in (*gate.push(answer), *gate.close()) if isinstance(each, Ended)]
    return [
        (each.sentence[start:end], set(each.cited))
        for each in ended
        for start, end in sentences(each.sentence + each.space)
    ]


def is_courtesy(sentence: str) -> bool:
    """Whether it says nothing of the matter."""
    return _COURTESY.search(sentence) is not None or sentence.rstrip(" \"')").endswith("?")


def is_claim(sentence: str) -> bool:
    """Whether a sentence without its citations could be wrong."""
    sends = _SEE_SOMEONE.search(sentence) is not None and len(sentence.split()) <= ADVICE_WORDS
    return not is_courtesy(sentence) and not sends and len(sentence.split()) > 2


def refuses(answer: str) -> bool:
    """Whether an answer says that no reply fits."""
    return _REFUSES.search(answer) is not None


def named(text: str) -> set[str]:
    """The doses, how often and how long something is taken, and the medicines that a text names."""
    found: set[str] = set()
    for facts in (Facts(text[start:end]) for start, end in sentences(text)):
        found |= facts.named | {f"{amount} {unit}" for amount, unit in facts.amounts}
        if facts.timed:
            found |= {f"{rate} a day" for rate in facts.rates}
            found |= {f"{days} days" for days in facts.lengths}
    return found


def _supports(sentence: str, reply: str, embed: Embed) -> bool:
    found = support(sentence, [reply], embed)
    return bool(found) and all(part.source is not None for part in found)
