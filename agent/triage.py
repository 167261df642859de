"""Emergencies, before anything else is asked.

Owns the search for red flags in what a patient writes: without a model or the network, well under
a millisecond for an ordinary message. The red flags are in `agent/red_flags.toml`, what takes them
back (negations, the past, films) in `agent/look_alikes.py`, how both are written and read in
`agent/wording.py`. Knows nothing of the notice that is shown (`prompts/emergency.j2`), of the
conversation, or of what is answered afterwards.

It errs on the safe side: a notice too many costs a line, a missed one may cost a life.
"""

import re
from collections import Counter, defaultdict
from functools import cache
from typing import Literal, NamedTuple, cast

from agent.look_alikes import is_taken_back
from agent.red_flags import RED_FLAGS, VOCABULARY
from agent.wording import compiled, fold, joined, openers, spelt_out

Kind = Literal[
    "cardiac", "stroke", "breathing", "anaphylaxis", "suicide", "overdose", "bleeding", "seizure",
    "unconscious", "meningitis", "head_injury", "pregnancy", "infant", "burn", "abdomen",
    "diabetic",
]  # fmt: skip

# No patient repeats a word so often; the bound keeps the time short for text made to take long.
_OCCURRENCES = 50
_WORD = re.compile(r"[\w.]+")


class _Cue(NamedTuple):
    """Words that count towards an emergency of one kind."""

    kind: Kind
    pattern: re.Pattern[str]


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
    found = _found(message)
    for kind, rules in _index().rules.items():
        for rule in rules:
            # All that is only looked up comes before what must be read with its context.
            if rule <= found.keys() and all(_is_meant(cue, message, found[cue]) for cue in rule):
                return kind
    return None


def _is_meant(cue: _Cue, message: str, places: list[tuple[int, int]]) -> bool:
    return any(not is_taken_back(message, start, end, cue.kind) for start, end in places)


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
