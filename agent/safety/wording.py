"""Plain words on both sides: a patient's message folded to them, and rules written in them.

Owns what a message is reduced to (lower case, no apostrophes, the slips in words that matter
mended, "," between clauses and "|" between sentences) and the notation of the rules that are
matched against it. Knows nothing of emergencies.

    swell*       any ending: swelling, swells
    a ~3 b       at most three words between a and b, in one clause, none of them a negation
    a .. b       b soon after a, in one sentence, no negation between
    <chest>      a group of words from a vocabulary
    ( | ) ? (?!  as in regular expressions

A line of a rule that breaks off beside a bar or a bracket is joined to the next without a space.
"""

import re
import unicodedata
from collections.abc import Mapping

PRONOUN = r"(?:i|im|ive|my|me|we|our|he|hes|his|him|she|shes|her|they|their)"

# Words that the rules rely on. A slip in one of them (a letter missing, doubled or swapped, a vowel
# wrong or too many) is mended, unless the slip is a word of its own.
_KEY_WORDS = """
    allergic allergy anaphylaxis anaphylactic antibiotic asthma babies bleach bleeding blister
    blisters blood boiling breath breathe breathing breathless burned chest chemical choking
    collapsed confused conscious consciousness contractions convulsing convulsion convulsions
    coughing crushing daughter diabetes diabetic difficulty dizzy drooping drowsy electric
    fainted feeding fever floppy foaming glucose headache heart husband inhaler insulin jerking
    lethargic meningitis movement newborn numbness overdose overdosed paracetamol poison
    poisoned pregnancy pregnant pressure reaction responding rigid rolled scalded seizure
    seizures severe shaking shivering sleepy slurred slurring speech squeezing stiff stomach
    stopped stroke struggling stung suddenly suffocating suicidal suicide swallow swallowed
    swallowing sweating swelling swollen tablets temperature throat tightness tongue twitching
    unconscious unresponsive vomit vomited vomiting weakness wheezing wouldnt
"""
_WORDS_OF_THEIR_OWN = """
    beach bload bluster chist collapse confuse contraction cushing difficult faver fiver hart
    hear heat inhale jerkin scaled seating selling sever sleep staff stang stepped sting stoke
    strike stuff stun sung sweeting swilling tables tablet tangue threat
"""
_SHORTHAND = {
    "hed": "head", "chocking": "choking", "speek": "speak", "pian": "pain", "paine": "pain",
    "atack": "attack", "siezed": "seized", "seizer": "seizure", "suicidle": "suicidal",
    "diabetik": "diabetic", "alergik": "allergic", "unconshus": "unconscious",
    "prego": "pregnant", "breathe": "breath", "swoling": "swelling", "stopd": "stopped",
    "babby": "baby", "gona": "going to", "wanna": "want to", "gonna": "going to",
    "cannot": "cant", "couldnt": "cant", "canot": "cant", "aint": "isnt", "dnt": "dont",
    "anymore": "any more", "yr": "year", "yrs": "years", "yo": "year old", "mths": "months",
    "mins": "minutes", "hrs": "hours",
}  # fmt: skip


def _slips(word: str) -> list[str]:
    """The ways in which `word` is most often mistyped; its first letter is taken to be right."""
    slips = []
    for i in range(1, len(word)):
        head, letter, tail = word[:i], word[i], word[i + 1 :]
        slips += [head + tail, head + letter + letter + tail, head + tail[:1] + letter + tail[1:]]
        slips += [head + vowel + letter + tail for vowel in "aeiou"]
        if letter in "aeiouy":
            slips += [head + vowel + tail for vowel in "aeiouy"]
    return slips


_WELL_SPELT = {*_KEY_WORDS.split(), *_WORDS_OF_THEIR_OWN.split()}
_SPELLING = {
    slip: word
    for word in _KEY_WORDS.split()
    for slip in _slips(word)
    if len(slip) > 3 and slip not in _WELL_SPELT
} | _SHORTHAND
_MARKS = re.compile("[\u0300-\u036f\u200b-\u200f'`\u00b4\u2018\u2019\u02bc]")
_WRAPPED_LINE = re.compile(r"(?<=[^\n]{60})\n(?=[a-z])")
_TOKEN = re.compile(r"\d{1,9}(?:[.,]\d{1,9})?|[^\W\d_]{1,40}|[,:()\u2013\u2014]|\.\.+|[.!?;\n]")
_NOT = re.compile(r"\b(is|are|was|were|do|does|did|has|have|had|will|would|could|can) not\b")
_UNABLE = re.compile(r"\b(?:(?:not|isnt|wasnt|arent|never) able to|unable to)\b")
_NEW_CLAUSE = re.compile(
    r"(?<!,) (?=(?:but|though|although|however|yet|except|because)\b|"
    rf"and (?:now|today|it|its|the|this|cant|{PRONOUN})\b)"
)
# "no fever, cough or chest pain": these commas mean "or".
_ITEM = rf"(?: (?!(?:n?or|is|are|has|have|cant|{PRONOUN})\b)\w++){{1,4}}"
_ENUMERATION = re.compile(rf" ,(?=(?:{_ITEM} ,){{0,5}}{_ITEM} (?:, )?n?or\b)")


def fold(text: str) -> str:
    """Return `text` as words between single spaces, with "," and "|" standing alone.

    Whatever is neither a word nor a number nor one of these two marks is dropped.
    """
    text = _MARKS.sub("", unicodedata.normalize("NFKD", text).lower())
    words = []
    for token in _TOKEN.findall(_WRAPPED_LINE.sub(" ", text)):
        if token[0].isalpha():
            words.append(_SPELLING.get(token, token))
        elif token[0].isdigit():
            words.append(token.replace(",", "."))
        elif token in ".!?;\n":
            words.append("|")
        elif token[0] != ".":
            words.append(",")
    message = _UNABLE.sub("cant", _NOT.sub(r"\1nt", " ".join(words)))
    return _ENUMERATION.sub(" or", _NEW_CLAUSE.sub(" , ", message))


# --- The notation ---------------------------------------------------------------------------------

_NO = r"(?:no|not|without|never|nor|(?:is|was|does|do|did|have|has)nt)\b"
_LOOKAROUND = re.compile(r"\^|\(\?<?[!=][^()]*\)")


def joined(rule: str) -> str:
    """The lines of a rule as one."""
    rule = re.sub(r"(?<=[|(])\s*\n\s*|\s*\n\s*(?=[|)])", "", rule.strip())
    return re.sub(r"\s*\n\s*", " ", rule)


def spelt_out(rule: str, vocabulary: Mapping[str, str]) -> str:
    """The rule with its <groups> written in full. Raises KeyError for one that is not defined."""
    rule = joined(rule)
    while group := re.search(r"<(\w+)>", rule):
        rule = rule.replace(group[0], f"({joined(vocabulary[group[1]])})")
    return rule


def compiled(rule: str) -> re.Pattern[str]:
    """The regular expression that a spelt-out rule stands for."""
    rule = re.sub(r"\((?!\?)", "(?:", rule)
    rule = re.sub(r"(?<=\w)\*", r"\\w*", rule)
    rule = re.sub(r" ~(\d+) ", lambda gap: rf"(?: (?!{_NO})[\w.]++){{0,{gap[1]}}}? ", rule)
    rule = rule.replace(" .. ", rf"(?: (?!{_NO})[\w.,]++){{0,12}}? ")
    return re.compile(rf"\b(?:{rule})\b")


def openers(rule: str) -> set[str]:
    """What the first word of a match of a spelt-out rule begins with.

    A word that is given in full ends in a space, "0" stands for any number.
    """
    found = set()
    for alternative in _alternatives(rule):
        while lookaround := _LOOKAROUND.match(alternative):
            alternative = alternative[lookaround.end() :]
        if alternative.startswith("("):
            end = _closing(alternative)
            inner, rest = openers(alternative[1:end]), alternative[end + 1 :]
            attached = rest[:1] not in ("", " ", "|", ")")
            found |= {opener.rstrip() for opener in inner} if attached else inner
            if rest[:1] in ("?", "*"):
                found |= openers(rest[1:].lstrip())
            continue
        stem = re.match("[a-z]*", alternative)
        word, rest = (stem[0], alternative[stem.end() :]) if stem else ("", alternative)
        if rest.startswith("?"):
            found.add(word[:-1])
        elif not word:
            found.add("0")
        else:
            whole = not rest or (rest[0] == " " and rest[1:2] != "?")
            found.add(f"{word} " if whole else word)
    return found


def _alternatives(rule: str) -> list[str]:
    parts, depth = [""], 0
    for character in rule:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _closing(rule: str) -> int:
    """Where the bracket closes with which `rule` begins."""
    depth = 0
    for position, character in enumerate(rule):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    raise ValueError(f"A bracket is not closed in this rule: {rule}")
