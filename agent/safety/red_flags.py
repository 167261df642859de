"""The red flags themselves, read from `red_flags.toml` and `red_flags_es.toml`: edit them there.

Owns nothing but the reading. `wording.py` has the notation, `triage.py` the search.
"""

import tomllib
from pathlib import Path

DATA = Path(__file__).parent / "data"
_FILE = tomllib.loads((DATA / "red_flags.toml").read_text(encoding="utf-8"))
_SPANISH = tomllib.loads((DATA / "red_flags_es.toml").read_text(encoding="utf-8"))

# Groups of words that rules name as <group>.
VOCABULARY: dict[str, str] = _FILE["vocabulary"]
# For each kind its rules, the kind that wins first.
RED_FLAGS: dict[str, str] = {
    kind: rules.strip() + "\n" + _SPANISH["red_flags"][kind]
    for kind, rules in _FILE["red_flags"].items()
}
