"""What tests need from outside this project, and where they find it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
_on_the_path = [Path(found).parent for found in [shutil.which("initdb")] if found]
_debians = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
POSTGRES = next(iter([*_on_the_path, *_debians]), None)
CURL = shutil.which("curl")
NODE = shutil.which("node")
# `npm ci --prefix tests/ai_sdk` puts it there.
AI_SDK = Path(__file__).with_name("ai_sdk") / "node_modules" / "ai"


def needs(thing: str, there: object) -> pytest.MarkDecorator:
    """Marks a test of `thing`. Without it the test is skipped, and says so; in CI it fails:
    conftest.py sees to both."""
    return pytest.mark.needs(thing, bool(there))


needs_browser = needs("chromium", CHROMIUM)
needs_postgres = needs("postgresql", POSTGRES)
needs_curl = needs("curl", CURL)
needs_ai_sdk = needs("the AI SDK", NODE and AI_SDK.is_dir())
