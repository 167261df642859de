"""Text that would be more than text to a model: control tokens, and words addressed to a model.

Owns two rules, and nothing of what is done by them. `harmless` breaks what a tokenizer would read
as a control token, so that nobody's text ends a turn or begins another. `addresses_model` finds a
doctor's reply that speaks to a model and not to a patient: it sets instructions aside, calls its
reader a machine, gives orders about answers, or plays turns of a dialogue. No doctor wrote it so;
people may read it, and the model gets none of it, for the sentence after the order is the
attacker's, too.

The second rule knows the common forms, in English and the commonest in Spanish, also behind
invisible, wide or decorated letters. It does not know look-alike letters of other alphabets,
encoded text, other languages, nor an order that reads like advice ("ACME drops cure this"): who
writes into the index can still mislead, and must be trusted. To a model there is no boundary
between data and orders that would do better (Greshake et al. 2023, arXiv 2302.12173).
"""

from __future__ import annotations

import re
import unicodedata

# <|im_end|>, </s>, <start_of_turn>, <<SYS>>, also full-width; [INST] and Mistral's others.
_CONTROL = re.compile(
    r"<(?=\s*(?:[|\uff5c/]|<?[A-Za-z_][\w-]*>))"
    r"|\[(?=/?(?:INST|[A-Z]+_[A-Z_]+|[gs]?MASK|BOS|EOS|UNK|PAD)\])"
)

_MACHINE = r"(?:ai|assistant|chat ?bot|bot|language model|llm|model|gpt|chat ?gpt|dan)s?\b(?!-)"
_ORDERS = (
    r"(?:instructions?|prompts?|commands?|directi(?:ons|ves?)|guidelines|rules|polic(?:y|ies)"
    r"|protocols?|constraints?|restrictions|filters|programming|instrucciones|indicaciones)\b"
)
_PEOPLE = r"(?:users?|patients?|readers?|humans?|customers?)\b"
_ANSWER = r"(?:answers?|repl(?:y|ies)|responses?|outputs?|messages?)\b"
# Where an order begins: a sentence, a clause, or after a word that leads to one.
_FIRST = (
    r"(?:(?:^|[.!?:;,\"'(\]-]) ?"
    r"|\b(?:and|then|instead|please|must|should|just|always|now)\s)"
)
_WORDS = r"(?:[\w'&/-]+,? ){0,4}?"

_ADDRESSED = (
    # Instructions are set aside, replaced or asked for.
    rf"(?<!not )(?<!never )(?<!n't )(?<!to )\b(?:ignore|disregard|forget|override|bypass|overrule"
    rf"|disable|stop following|ignor[ae]n?|olvid[ae]n?) {_WORDS}{_ORDERS}",
    r"\b(?:ignore|disregard|forget) (?:all |everything|anything)(?:,| (?:of )?(?:that )?"
    r"(?:the )?(?:above|before|so far|you (?:were|have|had|know)))",
    rf"\b(?:instructions?|rules?|commands?|prompts?) (?:\w+ )?(?:above|before this|given before)\b"
    rf"|\b(?:previous|prior|above|earlier) (?:user )?(?:{_ORDERS}|conversations?|messages?)"
    r"(?! from)",
    r"\b(?:system|developer|hidden|initial|admin) (?:prompt|message|mode|override|instructions?)\b",
    r"\bnew (?:instructions?|task|orders)(?: \w+)?:|\b(?:your|the) (?:new|real|true|only) "
    r"(?:task|instructions?|orders|question) (?:is|are)\b",
    r"\b(?:reveal|output|print|repeat|show) (?:me )?(?:your|the|everything) (?:\w+ ){0,2}"
    r"(?:prompt|instructions|above|configuration)\b",
    # The reader is a machine, or is to play one.
    r"\b(?:large language models?|language models?|llms?|chat ?gpt|gpt-?\d\w*|chat ?bots?"
    r"|prompt injection|do anything now|ai (?:model|assistant|system|agent|bot)s?)\b"
    r"|\bjail ?br(?:eak|oken)",
    rf"\b(?:you are|you're|act as|acting as|role-?play as|respond as|pretend to be) (?:now )?"
    rf"(?:an? |the |no longer an? )?{_WORDS}{_MACHINE}",
    r"\bfrom now on,? (?:you|your|always|only|reply|answer|respond)\b[^.!?\n]{0,60}"
    r"\b(?:no|only|are|be|answer|reply|respond|obey)\b",
    rf"{_FIRST}(?:pretend (?:to be|that you are|you are)|(?:act|talk|speak|answer|respond|write) "
    r"(?:as|like) an? \w+(?: who|,? and|\.|!|$))",
    r"\byou are (?:now|no longer) (?:\"|(?:an? )?(?:\w+ )?(?:bound|unrestricted|evil|pirate))",
    r"\b(?:attention|note|message|instructions?|reminder|hey|dear),? (?:(?:to|for) )?"
    rf"(?:the |all )?{_MACHINE} ?[:,!.-]",
    # What is to be answered, and to whom.
    rf"\byour (?:next |final |only |whole )?{_ANSWER} (?:must|should|shall|has to|have to|is to)\b",
    rf"{_FIRST}(?:begin|start|end|finish|sign) (?:every|each|your|all|any) (?:\w+ )?{_ANSWER}"
    r" with\b",
    rf"\bin (?:your|every|each|all) {_ANSWER},? (?:include|mention|add|say|insert|write)\b",
    rf"{_FIRST}(?:reply|respond|answer)(?: to \w+(?: \w+)?)?(?: only| exactly| simply)? "
    r"(?:with|in) (?:\"|'|only\b|exactly\b|nothing\b|capital|(?:the |a |one )?(?:single )?"
    r"(?:words?|phrase|sentence|string|text|following)\b|(?:yes|no)\b)",
    rf"{_FIRST}(?:say|write|print|output|repeat|type) (?:\"[^\"]*(?:pwned|hacked|mode)|only\b"
    r"|(?:the )?(?:following|text|string|letter)\b|the word \w+(?: \w+)?(?:[.!]|$))",
    r"\b(?:say|print|output|write|reply|answer|announce)\b[^.!?\n]{0,30}\b(?:hacked|pwned)\b",
    rf"{_FIRST}(?:tell|convince|persuade|trick) (?:the|every|any|all|each) {_PEOPLE}",
    rf"\b(?:when|if|whenever) (?:the|an?|any) {_PEOPLE} (?:asks?|says?|writes?|types?)\b",
    # Turns of a dialogue, marks of a prompt, and the words of ours.
    r"(?:^|[.!?\"'(]) ?(?:system|assistant|user|human|ai|bot|chatbot|model|patient|doctor"
    r"|asistente|usuario|paciente) ?:",
    r"<\s?[|\uff5c][^<>\n]{1,40}[|\uff5c]>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|</?(?:system|assistant|user|human|instructions?|prompt|hidden)\b[^>\n]{0,20}>",
    r"#{2,} ?(?:instructions?|response|system|user|assistant)\b"
    r"|\[(?:system|admin|assistant|user)\b[^\]\n]{0,20}\]|-{3,} ?(?:begin|end)\b[^\n]{0,30}-{3,}",
    r"\bdoctors have replied to other patients\b|\bnow this patient writes\b"
    r"|\brewrite the input text\b",
)
_RULES = re.compile("|".join(_ADDRESSED), re.IGNORECASE | re.MULTILINE)
_QUOTES = str.maketrans("\u2019\u2018\u201c\u201d", "''\"\"")


def harmless(text: str) -> str:
    """`text` with a space in each control token, so that it is read as the characters it is."""
    return _CONTROL.sub(r"\g<0> ", text)


def addresses_model(reply: str) -> bool:
    """Whether a doctor's reply speaks to a model and not to a patient."""
    return _RULES.search(_as_read(reply)) is not None


def _as_read(text: str) -> str:
    """Wide letters as narrow ones, one kind of quotation mark, nothing unseen, no decoration, and
    no more than one space or line end in a row."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cf", "Cc"))
    text = re.sub(r"[^\S\n]+", " ", re.sub(r"[*_`~]", "", text))
    return re.sub(r" ?\n[ \n]*", "\n", text)
