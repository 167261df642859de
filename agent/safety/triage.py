"""Emergencies, before anything else is asked.

Owns the search for red flags in what a patient writes: without a model or the network, well under
a millisecond for an ordinary message. The red flags are in `data/red_flags.toml`, what takes them
back (negations, the past, films) in `look_alikes.py`, how both are written and read in
`wording.py`. A second opinion, the weighed words of `triage_head.py`, speaks of what no rule
foresaw, and against a rule that caught on a word. Knows nothing of the notice that is shown
(`emergency.py`), of the conversation, or of what is answered afterwards.

It errs on the safe side: a notice too many costs a line, a missed one may cost a life.
"""

import re
from collections import Counter, defaultdict
from functools import cache
from typing import Literal, NamedTuple, cast

from agent.safety.look_alikes import is_taken_back
from agent.safety.red_flags import RED_FLAGS, VOCABULARY
from agent.safety.triage_head import likeliest_kind, weigh
from agent.safety.wording import compiled, fold, joined, openers, spelt_out

Kind = Literal[
    "cardiac", "stroke", "breathing", "anaphylaxis", "suicide", "overdose", "bleeding", "seizure",
    "unconscious", "meningitis", "head_injury", "pregnancy", "infant", "burn", "abdomen",
    "diabetic",
]  # fmt: skip

# A red flag counts as so much of the words' log odds, and both together must come to so much; a
# sentence may be weighed without the others, at a price. Chosen by cross-validation over messages
# in fresh voices, and so that what was learned is still found (docs/evaluation.md).
_FLAG, _ENOUGH, _OUT_OF_CONTEXT = 3.0, 1.5, 0.5
# Where the rules found nothing, so many sentences are weighed alone, if they have so many words.
_SENTENCES, _WORDS = 20, 2
# What follows "but" is what is meant: it is weighed as a sentence.
_SENTENCE_END = re.compile(r" ?\| ?|, but ")
# What begins with "and" and has fewer words than this goes on about something else.
_OF_ITS_OWN = 4
# No patient repeats a word so often; the bound keeps the time short for text made to take long.
_OCCURRENCES = 50
_WORD = re.compile(r"[\w.]+")
# What every fourth word of a Spanish message is, at least; the weights are of English words.
_SPANISH = re.compile(
    r"\b(?:el|la|los|las|un|una|de|del|en|que|y|con|por|se|le|mi|su|es|esta|estoy|soy|tengo|"
    r"tiene|muy|mas|ya|desde|hace|puedo|puede|como|cuando|quiero)\b"
)


class _Cue(NamedTuple):
    """Words that count towards an emergency of one kind."""

    kind: Kind
    pattern: re.Pattern[str]


class _Flag(NamedTuple):
    """A red flag of `kind`, in `message[start:end]`."""

    kind: Kind
    start: int
    end: int


class _Index(NamedTuple):
    """For each kind its rules (the cues that must all be meant), and the cues by their openers."""

    rules: dict[Kind, list[set[_Cue]]]
    opened: dict[str, list[_Cue]]


def triage(text: str) -> Kind | None:
    """Return the most urgent emergency that `text`, a patient's message, speaks of, or None.

    Any string is accepted, of any length; nothing is raised. Where several kinds fit, the one
    whose first aid is the most specific wins: the order of `RED_FLAGS`.
    """
    message = fold(text)
    flag = red_flag(message)
    opinion = _opinion(message)
    if opinion is None:  # in another language the rules know the plainest words, and no more
        return flag.kind if flag else None
    if flag:
        told = [_sentences(message, flag.start, flag.end)]
        if _is_spanish(told[0]):
            return flag.kind
    else:
        parts = _SENTENCE_END.split(message, _SENTENCES)[:_SENTENCES]
        told = [part for part in parts if len(part.split()) >= _WORDS]
    for sentence in told:
        alone = weigh(sentence)
        opinion = opinion if alone is None else max(opinion, alone - _OUT_OF_CONTEXT)
    if flag:
        return flag.kind if opinion + _FLAG > _ENOUGH else None
    # "And my son?" goes on about something else, and its few words weigh what chance makes them.
    goes_on = message.startswith("and ") and len(_WORD.findall(message)) < _OF_ITS_OWN
    if goes_on or opinion <= _ENOUGH:
        return None
    return cast(Kind | None, likeliest_kind(message))


def is_plain(text: str) -> bool:
    """Whether a rule finds a red flag in `text`, and not the weighed words alone."""
    return red_flag(fold(text)) is not None


def _opinion(message: str) -> float | None:
    return None if _is_spanish(message) else weigh(message)


def _is_spanish(message: str) -> bool:
    return 4 * len(_SPANISH.findall(message)) >= len(message.split())


def red_flag(message: str) -> _Flag | None:
    """The most urgent red flag in `message` that is meant, by the rules."""
    found = _found(message)
    for kind, rules in _index().rules.items():
        for rule in rules:
            # All that is only looked up comes before what must be read with its context.
            if rule <= found.keys():
                meant = [_meant(cue, message, found[cue]) for cue in rule]
                places = [place for place in meant if place is not None]
                if len(places) == len(rule):
                    return _Flag(kind, min(s for s, _ in places), max(e for _, e in places))
    return None


def _meant(cue: _Cue, message: str, places: list[tuple[int, int]]) -> tuple[int, int] | None:
    for start, end in places:
        if not is_taken_back(message, start, end, cue.kind):
            return start, end
    return None


def _sentences(message: str, start: int, end: int) -> str:
    """The sentences in which `message[start:end]` stands."""
    after = message.find("|", end)
    return message[message.rfind("|", 0, start) + 1 : after if after >= 0 else len(message)]


def _found(message: str) -> dict[_Cue, list[tuple[int, int]]]:
    """The cues that stand in `message`, each with the places (start, end) where it does."""
    found: defaultdict[_Cue, list[tuple[int, int]]] = defaultdict(list)
    opened: dict[str, list[_Cue]] = {}
    occurrences: Counter[str] = Counter()
    for word in _WORD.finditer(message):
        occurrences[word[0]] += 1
        if occurrences[word[0]] > _OCCURRENCES:
            continue
        if word[0] not in opened:
            opened[word[0]] = _opened_by(word[0])
        for cue in opened[word[0]]:
            if match := cue.pattern.match(message, word.start()):
                found[cue].append(match.span())
    return found


def _opened_by(word: str) -> list[_Cue]:
    opened = _index().opened
    if word[0].isdigit():
        return opened["0"]
    keys = [f"{word} ", *(word[: end + 1] for end in range(len(word)))]
    return [cue for key in keys if key in opened for cue in opened[key]]


@cache
def _index() -> _Index:
    rules: dict[Kind, list[set[_Cue]]] = {}
    opened: defaultdict[str, list[_Cue]] = defaultdict(list)
    for name, flags in RED_FLAGS.items():
        kind = cast(Kind, name)
        cues: dict[str, _Cue] = {}
        rules[kind] = []
        for rule in flags.strip().removeprefix("- ").split("\n- "):
            texts = [spelt_out(text, VOCABULARY) for text in joined(rule).split(" & ")]
            for text in texts:
                if text not in cues:
                    cues[text] = _Cue(kind, compiled(text))
                    for opener in openers(text):
                        opened[opener].append(cues[text])
            rules[kind].append({cues[text] for text in texts})
    return _Index(rules, dict(opened))
