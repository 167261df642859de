"""How well `agent.chat.support` tells which reply a sentence comes from.

    python -m benchmarks.support
    python -m benchmarks.support --missed    # prints what it got wrong, too
    python -m benchmarks.support --blind     # 40 by another author, none of which was looked at

Each line of support.jsonl beside this file holds a sentence of a reply of the sample (`said`), a
light paraphrase of it, the same `in_other_words`, and a `contradiction`; all were written by hand,
and the thresholds were chosen on them, so that the figures flatter; support_blind.jsonl does not.
The first three are supported by their reply, the last one is not. Nor are the first three by
replies to other conditions. Replies to the same condition stand apart, for they may say the same by
right.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

from agent.chat.support import support
from index_store import SAMPLE
from index_store.embedding import EMBEDDED, embed_texts, load_embedding

ROWS = Path(__file__).with_name("support.jsonl")
BLIND = Path(__file__).with_name("support_blind.jsonl")
OTHERS = 6  # replies to other conditions that each sentence is held against


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--blind", action="store_true")
    options = parser.parse_args()
    embedding = load_embedding(EMBEDDED)
    replies = [
        json.loads(line)
        for path in sorted(SAMPLE.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    draw = random.Random(0)
    counts: dict[str, list[bool]] = defaultdict(list)
    seconds = []

    def count(group: str, sentence: str, reply: str, right: bool) -> None:
        begun = time.perf_counter()
        found = support(sentence, [reply], partial(embed_texts, embedding))
        seconds.append(time.perf_counter() - begun)
        supported = all(part.source is not None for part in found)
        counts[group].append(supported)
        if options.missed and supported != right:
            print(f"{group} ({found[0].score}): {sentence}")

    rows = BLIND if options.blind else ROWS
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        own = next(reply for reply in replies if row["said"] in reply["Doctor"])
        same = [r for r in replies if r["condition"] == own["condition"] and r is not own]
        other = [r for r in replies if r["condition"] != own["condition"]]
        for form in ("said", "paraphrase", "in_other_words"):
            count(f"its own reply: {form}", row[form], own["Doctor"], True)
            count("same condition", row[form], draw.choice(same)["Doctor"], False)
            for reply in draw.sample(other, OTHERS):
                count("another condition", row[form], reply["Doctor"], False)
        count("its own reply: contradiction", row["contradiction"], own["Doctor"], False)

    for group, supported in counts.items():
        share = sum(supported) / len(supported)
        print(f"{group:<32} {len(supported):4} sentences, {share:6.1%} called supported")
    seconds.sort()
    print(f"one sentence and one reply: median {seconds[len(seconds) // 2] * 1000:.0f} ms")


if __name__ == "__main__":
    main()
