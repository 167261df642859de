"""What a new conversation begins with: the first questions, one click each.

Owns which questions are offered. Does not know the welcome's other words: `chainlit.md` and its
Spanish sibling, and `public/medraft.css`.
"""

from __future__ import annotations

import chainlit as cl

from agent.page.language import say
from agent.templates import Language

QUESTIONS = ["headache", "acne", "cough", "help"]


def starters(to: Language) -> list[cl.Starter]:
    """The questions, as people ask them."""
    questions = [say(f"welcome.{name}", to) for name in QUESTIONS]
    return [cl.Starter(label=question, message=question) for question in questions]
