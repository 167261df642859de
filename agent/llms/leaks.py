"""What a model says that is not its answer: thoughts, control tokens, the header of a turn.

Owns the marks by which they are known in a stream, and how a stream goes on without them. Servers
turn them into fields of their own or into nothing, if they are set up for the model; where they
are not, the marks arrive as text, in pieces. Knows no server and no protocol.

The marks are those of Llama 2 and 3, ChatML, Gemma, Phi and Zephyr, Mistral, DeepSeek, Kimi, and
gpt-oss (its "harmony" channels).
"""

from __future__ import annotations

import regex

_THINK = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|seed:think)"
_BAR = r"[|\uff5c]"
_ROLE = r"(?:assistant|model|Assistant)"
# Of a turn that is not the assistant's.
_OTHER = r"(?:user|system|human|tool|ipython|developer|User)"
_MARKS = rf"""
  (?P<think> <{_THINK}> | \[THINK\] | ◁think▷
    | <\|channel\|>\s*(?:analysis|commentary)[^<]{{0,40}}<\|message\|> )
| (?P<thought> </{_THINK}> | \[/THINK\] | ◁/think▷ )
| (?P<final> <\|channel\|>\s*final[^<]{{0,40}}<\|message\|> )
| (?P<begins> <s> | <\|begin_of_text\|> | <bos> | <{_BAR}begin▁of▁sentence{_BAR}> )
| (?P<header> <\|start_header_id\|>\s*{_ROLE}\s*<\|end_header_id\|> | <\|im_start\|>\s*{_ROLE}
    | <start_of_turn>\s*{_ROLE} | <{_BAR}{_ROLE}{_BAR}> | <\|start\|>\s*{_ROLE} | \[/INST\]
    | (?:\A|(?<=[\n.!?]))assistant\n | (?:\A|(?<=\n))Assistant:\s )
| (?P<end> <\|(?:eot_id|eom_id|end_of_text|im_end|endoftext|end|return|end_of_turn
      |END_OF_TURN_TOKEN)\|> | </s> | <end_of_turn> | <eos> | <{_BAR}end▁of▁sentence{_BAR}> )
| (?P<turn> <\|start_header_id\|>\s*{_OTHER} | <\|im_start\|>\s*{_OTHER}
    | <start_of_turn>\s*{_OTHER} | <{_BAR}{_OTHER}{_BAR}> | <\|start\|>\s*{_OTHER} | \[INST\]
    | (?:\A|(?<=[\n.!?]))user\n | (?<=\n)(?:User|Human):\s )
"""
_MARK = regex.compile(_MARKS, regex.VERBOSE)
THOUGHT = ("think", "thought", "final")
_HIGH = regex.compile(r"[\ud800-\udbff]\Z")


class Answer:
    """An answer as it comes, without what is not the answer; `hear` each piece, then `rest`.

    `begun_in_thought`: its first words may be thoughts that nothing announced.
    """

    def __init__(self, begun_in_thought: bool = False) -> None:
        self.ended = False  # by a token of its own, or because it went on to another's turn
        self.thought = False  # it said something that was not the answer's
        self.unannounced = False  # a thought ended that nothing had announced
        self._maybe = begun_in_thought
        self._thinking = begun_in_thought
        self._before = ""  # the last character that was let through
        self._trim = False
        self._held = ""  # what may be the beginning of a mark
        self._half = ""  # the first half of a UTF-16 pair

    def hear(self, text: str) -> str:
        """What of `text`, and of what came before it, may be shown."""
        text = self._half + text
        self._half = text[-1:] if _HIGH.search(text) else ""
        return self._go_on(_whole(text.removesuffix(self._half)))

    def rest(self) -> str:
        """What is left when the stream has ended."""
        text = self._go_on(_whole(self._half))
        held, self._held = self._held, ""
        if self.ended or (self._thinking and not self._maybe):
            return text
        return text + self._through(held)

    def _go_on(self, text: str) -> str:
        self._held += text
        shown = ""
        while self._held and not self.ended:
            offset = len(self._before)
            mark = _MARK.search(self._before + self._held, pos=offset, partial=True)
            # Of a text without any, the end is a mark of no characters.
            start = len(self._held) if mark is None else mark.start() - offset
            found = "" if mark is None or mark.partial else mark.lastgroup or ""
            self._wait_no_longer(found)
            if not self._maybe:
                shown += self._through(self._held[:start])
                self._held, start = self._held[start:], 0
            if mark is None or not found:
                break
            after = self._held[start + len(mark[0]) :]
            self._held = after if found in THOUGHT else self._held[:start] + after
            self._meet(found)
        return shown

    def _wait_no_longer(self, mark: str) -> None:
        """It ends without a word of thoughts: what there is was the answer."""
        if self._maybe and mark in ("end", "turn"):
            self._thinking = self._maybe = False

    def _meet(self, mark: str) -> None:
        """Another turn than the answer's first ends it, as a token of its end does."""
        self._trim = True
        match mark:
            case "think":
                self._thinking, self._maybe, self.thought = True, False, True
            case "thought" | "final":
                self.unannounced |= self._maybe or (mark == "thought" and not self._thinking)
                self._thinking = self._maybe = False
                self.thought = True
            case "end" if self._thinking and not self._maybe:
                self._thinking = False  # gpt-oss ends each channel with one
            case "header":
                self.ended = bool(self._before)
            case "end" | "turn":
                self.ended = True

    def _through(self, text: str) -> str:
        if self._thinking and not self._maybe:
            return ""
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        self._before = text[-1:] or self._before
        return text


def _whole(text: str) -> str:
    """Halves of UTF-16 pairs joined; one that is alone is no text to any tokenizer."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
