"""The red flags themselves, read from `red_flags.toml` beside this file, where they are edited.

Owns nothing but the reading. `agent/wording.py` has the notation, `agent/triage.py` the search.
"""

import tomllib
from pathlib import Path

_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

# Groups of words that rules name as <group>.
VOCABULARY: dict[str, str] = _FILE["vocabulary"]
# For each kind its rules, the kind that wins first.
RED_FLAGS: dict[str, str] = _FILE["red_flags"]
