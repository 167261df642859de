"""What a model says that is not its answer: thoughts, control tokens, the header of a turn.

Owns the marks by which they are known in a stream, and how a stream goes on without them. Servers
turn them into fields of their own or into nothing, if they are set up for the model; where they
are not, the marks arrive as text, in pieces. Knows no server and no protocol.

The marks are those of Llama 2, 3 and 4, ChatML, Gemma, Phi and Zephyr, Mistral, DeepSeek, Kimi,
Cohere, Granite, Apertus, Alpaca, Vicuna, and gpt-oss (its "harmony" channels); a control token of
any other (`<|...|>`) is left out.
"""

from __future__ import annotations

import regex

_THINK = (
    r"(?i:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|seed:think"
    r"|tool_call)"
)
_BAR = r"[|\uff5c]"
_ROLE = r"(?:assistant|model|Assistant|CHATBOT_TOKEN|assistant_start)"
# Of a turn that is not the assistant's.
_OTHER = (
    r"(?:user|system|human|tool|ipython|developer|User|observation|user_start|system_start"
    r"|USER_TOKEN|SYSTEM_TOKEN)"
)
_OPEN = (
    r"(?:<\|(?:start_header_id|header_start|im_start|start|start_of_role)\|>|<start_of_turn>"
    r"|<\|turn>)"
)
# A role that is a word among others counts where a sentence has ended, as a line's label only
# in a line of its own: not in "Types of insulin:", nor in "The dental / assistant / will help".
_ENDED = r"""[.!?\u2026][)\]"'\u201d\u00bb*_]{0,2}"""
_LABEL = r"(?i:user|human|patient|usuario|paciente)"
_MARKS = rf"""
  (?P<think> <\s*{_THINK}\b[^<>]{{0,40}}> | \[THINK\] | ◁think▷ | <<SYS>> | <\|channel>\s*thought
    | <\|(?:thinking|begin_of_thought|START_THINKING|inner_prefix)\|>
    | <\|channel\|>\s*(?:analysis|commentary)
    | \A\s*analysis(?=\w) | \A\s*Here(?:'s|[ ]is)[ ]my[ ]thought[ ]process: )
| (?P<thought> <\s*/\s*{_THINK}\s*> | \[/THINK\] | ◁/think▷ | <</SYS>> | <channel\|>
    | <\|(?:/thinking|end_of_thought|END_THINKING|inner_suffix)\|> )
| (?P<final> <\|channel\|>\s*final | assistantfinal | <(?i:answer)>
    | Here(?:'s|[ ]is)[ ]my[ ]response: )
| (?P<header> {_OPEN}\s*{_ROLE} | <{_BAR}{_ROLE}{_BAR}> | \[/INST\]
    | (?:\A\s*|(?<={_ENDED}\n{{0,2}}))assistant\n
    | (?:\A\s*|(?<={_ENDED}[ ]?\n{{1,2}}))(?i:assistant|asistente): | \A\s*(?:AI|Doctor):
    | (?:\A\s*|(?<=\n))\#{{2,4}}[ ]?(?:Assistant|Response): )
| (?P<end> <\|(?:eot_id|eom_id|eot|eom|eos|end_of_text|im_end|endoftext|endofmessage|end|return
      |call|end_of_turn|END_OF_TURN_TOKEN|END_RESPONSE|end_of_solution|assistant_end)\|>
    | </s> | <end_of_turn> | <turn\|> | <(?i:eos|eoa|seed:eos)> | </(?i:answer)>
    | <{_BAR}end▁of▁sentence{_BAR}> )
| (?P<turn> {_OPEN}\s*{_OTHER} | <{_BAR}{_OTHER}{_BAR}> | \[INST\]
    | (?:\A\s*|(?<={_ENDED}\n{{0,2}}))user\n
    | (?:\A\s*|(?<=\n))\#{{2,4}}[ ]?(?:Human|User|Patient|Instruction|Input): )
| (?P<label> (?<={_ENDED}[ ]?\n{{1,2}}){_LABEL}: )
| (?P<token> <(?:s|bos|sop|unk|pad|SPECIAL_\d+|reserved_\d+)> | \[gMASK\]
    | {_OPEN}(?=\s*(?!{_ROLE}|{_OTHER})\w+\W)
    | (?!{_OPEN}|<\|channel\|>)<{_BAR}[\w▁]{{1,40}}{_BAR}> )
"""
_MARK = regex.compile(_MARKS, regex.VERBOSE)
# At the end of all: a token that was cut, or one that nothing follows.
_CUT = regex.compile(rf"<{_BAR}[\w▁]*{_BAR}?>?\Z")
_BEHIND = 9  # characters that tell whether a sentence has ended, at the most
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
        self._echo = False  # it says the patient's turn again, before its own
        self._shown = False  # something that is not blank
        self._blank = ""  # what it began with, until it is known what follows
        self._before = ""  # the last characters of this turn, as far as they are no thoughts
        self._trim = False
        self._held = ""  # what may be the beginning of a mark
        self._searched = 0  # characters of it, within which none begins
        self._half = ""  # the first half of a UTF-16 pair

    def hear(self, text: str) -> str:
        """What of `text`, and of what came before it, may be shown."""
        text = self._half + text
        self._half = text[-1:] if _HIGH.search(text) else ""
        return self._go_on(_whole(text.removesuffix(self._half)))

    def rest(self) -> str:
        """What is left when the stream has ended."""
        self._held = _CUT.sub("", self._held + _whole(self._half))
        text = self._go_on("", last=True)
        held, self._held = self._held, ""
        self._thinking = self._thinking and not self._maybe
        return text if self.ended else text + self._through(held)

    def _go_on(self, text: str, last: bool = False) -> str:
        self._held += text
        shown = ""
        while self._held and not self.ended:
            offset = len(self._before)
            begin = offset + self._searched
            mark = _MARK.search(self._before + self._held, pos=begin, partial=not last)
            # Of a text without any, the end is a mark of no characters.
            start = len(self._held) if mark is None else mark.start() - offset
            found = "" if mark is None or mark.partial else mark.lastgroup or ""
            self._searched = start if self._maybe and not found else 0
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
        self._trim = not self._shown or self._before[-1:].isspace()
        if not self._shown:
            self._blank = ""
        match mark:
            case "think":
                self._thinking, self._maybe, self.thought = True, False, True
            case "thought" | "final":
                self.unannounced |= self._maybe or (mark == "thought" and not self._thinking)
                self._thinking = self._maybe = False
                self.thought = True
            case "end" if self._thinking and not self._maybe:
                self._thinking = False  # gpt-oss ends each channel with one
            case "end" if not self._echo:
                self.ended = True
            case "header" | "turn" | "label" if not self._thinking:
                self.ended = self._shown or (mark != "header" and self.thought)
                self._echo = mark != "header"
        if mark in ("end", "header"):
            self._echo, self._before = False, "" if self._echo else self._before

    def _through(self, text: str) -> str:
        if self._thinking and not self._maybe:
            return ""
        if self._echo:
            self._before = (self._before + text)[-_BEHIND:]
            return ""
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        text, self._blank = self._blank + text, ""
        if not self._shown and not text.strip():
            self._blank = text
            return ""
        self._shown = True
        self._before = (self._before + text)[-_BEHIND:]
        return text


def _whole(text: str) -> str:
    """Halves of UTF-16 pairs joined; one that is alone is no text to any tokenizer."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
