"""What rules and patterns cost a message, and a hundred thousand characters that are meant ill.

    python -m benchmarks.rules

Prints milliseconds, the fastest of three rounds: the phrases that nobody may miss, the search for
orders to a model, and the split into sentences. Run it on an idle machine; `medraft evaluate
triage` and `medraft evaluate router` print what an ordinary message costs each.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.chat.support import sentences
from agent.safety.injection import addresses_model, harmless
from agent.safety.phrases import unmistakable

LENGTH = 100_000
HOSTILE = ["a", "a, ", ".", "'", "\n", " ", "38.5 ", "no chest pain ", "chest ", "x, y, z or "]
HOSTILE += ["denies chest pain or stroke or seizure, ", "((((", "ignore all ", "<|", "- 1. ", "a. "]
RULES: dict[str, Callable[[str], object]] = {
    "phrases": unmistakable,
    "orders to a model": lambda text: (addresses_model(text), harmless(text)),
    "sentences": lambda text: list(sentences(text)),
}


def milliseconds(rule: Callable[[str], object], text: str) -> float:
    def once() -> float:
        start = time.perf_counter()
        rule(text)
        return (time.perf_counter() - start) * 1000

    return min(once() for _ in range(3))


def main() -> None:
    ordinary = "Hello doctor, my knee has been swollen since I fell on it last week. What helps?"
    for name, rule in RULES.items():
        rule("the first call compiles")
        taken = {part: milliseconds(rule, part * (LENGTH // len(part))) for part in HOSTILE}
        worst = max(taken, key=lambda part: taken[part])
        print(
            f"{name:18} ordinary message {milliseconds(rule, ordinary):6.2f} ms   "
            f"{LENGTH} characters at worst {taken[worst]:6.0f} ms ({worst!r})"
        )


if __name__ == "__main__":
    main()
