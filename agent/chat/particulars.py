"""What in a sentence of a doctor's reply belongs to the patient that it was written to.

Owns the rules by which a sentence may be said to another patient. A particular is an age, a date, a
number, a medicine, relatives or words of the first patient's letter that the second never wrote;
what the first one said, has, took or was told ("as your scan shows", "you mentioned"); and the
urgency of that case ("go to hospital tonight"), unless a condition leads to it ("if you vomit
blood, go tonight"). The rules are English, and rather leave a good sentence out than a particular
in.

Knows nothing of which sentence answers a question, nor of who reads what is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bm25s.stopwords import STOPWORDS_EN_PLUS

from agent.chat.medicines import named_in
from agent.chat.support import sentences

STEM = 5  # letters
SHARED, SHARED_SHARE = 2, 0.3  # words of the first patient's letter, and their share of a sentence

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_TENS = "ten|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SMALL = "three|four|five|six|seven|eight|nine|eleven|twelve"
_NUMBER = re.compile(
    rf"\d+(?:[.,:/]\d+)*|\b(?:(?:{_TENS})(?:-(?:one|two|{_SMALL}))?|{_SMALL}"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen)\b",
    re.IGNORECASE,
)
_AGE = re.compile(
    rf"\b(?:at|aged?|you are|is|turned) (?:only |about |just )?(?:\d{{1,3}}|(?:{_TENS})(?:-\w+)?)"
    r"(?=[ ,.;:]*(?:$|[,.;:]|(?:and|with|the|a|it|you|this|that|she|he|or)\b))"
    r"|\b(?:\d+|\w+)[- ](?:year|month|week|day)s?[- ]olds?\b|\bat (?:your|his|her|that) age\b"
    r"|\byour age\b|\bat \w+(?:-\w+)? (?:weeks|months)\b|\bin your (?:\w+ )?(?:\d0s|\w+ties)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|yesterday|last (?:night|week|month|year)"
    r"|this (?:morning|afternoon|evening|weekend)|christmas|easter|january|february|april|june"
    r"|july|august|september|october|november|december)\b",
    re.IGNORECASE,
)
_WOMEN = (
    r"wi(?:fe|ves)|daughters?|mothers?|mums?|moms?|sisters?|aunts?|nieces?"
    r"|grand(?:ma|mother|daughter)s?|gran|nans?|girlfriends?|girls?|wom[ae]n|lady|she|her|hers"
    r"|herself|f|female"
)
_MEN = (
    r"husbands?|sons?|fathers?|dads?|papa|brothers?|uncles?|nephews?|grand(?:pa|dad|father|son)s?"
    r"|boyfriends?|boys?|m[ae]n|he|him|his|himself|m|male"
)
_ANYBODY = (
    r"cousins?|partners?|bab(?:y|ies)|child(?:ren)?|kids?|toddlers?|infants?|twins?|neighbours?"
    r"|colleagues?|boss|friends?|mate"
)
_PEOPLE = tuple(
    re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for words in (_WOMEN, _MEN, _ANYBODY)
)
# What nearly every patient has, and a reply may call theirs.
_COMMON = (
    r"own|doctors?|gp|pharmacist|pharmacy|midwife|nurse|dentist|optician|physiotherapist|surgery"
    r"|clinic|health|body|head|back|neck|chest|stomach|tummy|skin|hair|eyes?|ears?|nose|mouth"
    r"|teeth|tongue|throat|hands?|fingers?|arms?|wrists?|elbows?|shoulders?|legs?|knees?|ankles?"
    r"|feet|foot|toes?|hips?|heart|lungs?|liver|kidneys?|bladder|bowels?|gut|brain|blood|bones?"
    r"|joints?|muscles?|breath(?:ing)?|sleep|weight|diet|food|meals?|bed|day|life|temperature"
    r"|urine|stools?|symptoms?|local|usual|next|risk|chances|face|scalp|nails?|first|whole"
)
_YOURS = re.compile(rf"\byour(?:s\b| (?!(?:{_COMMON})\b)\w+)", re.IGNORECASE)
_TOLD = (
    r"are|were|had|have|did|do|take|took|use[ds]?|feel|felt|describe[ds]?|mention(?:ed)?|said|say"
    r"|sa[wy]|wrote|write|noticed?|told|gave|give|report(?:ed)?|list(?:ed)?|asked?|tried|found"
    r"|read|fear|worry|worried|think|thought|suspect|sound|seem|live|work|already|still|both"
    r"|got|went|came|put|spotted|lost|gained|weigh|smoke|drink|want|ate|aren't|don't|didn't"
    r"|haven't|weren't|truly|really|clearly"
)
_STATED = re.compile(
    rf"\byou(?:['\u2019](?:re|ve|d) \w+|,? (?:{_TOLD})\b)|\b(?:for|in|like) you\b", re.IGNORECASE
)
# How a sentence begins that needs the one before it, or that answers the first patient.
_HANGS = re.compile(
    r"(?:it|its|this|that|these|those|they|their|them|both|neither|either|another|such|here|one"
    r"|there(?:fore|after)|then|yet|so|but|and|nor|or|also|too|otherwise|together|even so|still"
    r"|hence|instead|since|given|seeing|as for|regarding|with (?:a|an|the|your|that|this)|most of"
    r"|each|none|some of|two|three|yes|no|not|because|although|though|however|rather|in your"
    r"|(?:only|either|all) (?:then|way|this|that)|the (?:same|other|latter|former|others?|second)"
    r"|before (?:leaving|you (?:leave|go|travel))|on the way|(?:un)?till? then|after (?:that|this)"
    r"|once (?:he|she|it|they|that|this)|afterwards|meanwhile|while (?:you wait|waiting)|by then"
    r"|tell (?:them|him|her)|for (?:her|him|now)|do telephone"
    r"|what|whatever|your (?!doctor|gp|pharmacist|midwife|nurse|dentist)\w+"
    r"|you (?!can|may|should|need|could|might|must|will|do not))\b",
    re.IGNORECASE,
)
_FIRST = re.compile(r"\bI(?:['\u2019](?:m|d|ve|ll))?\b|\b(?:we|us|our|my|me)\b")
_URGENT = re.compile(
    r"\b(?:to(?:day|night|morrow)|now|at once|immediately|straight away|right away|same[- ]day"
    r"|without (?:delay|waiting)|urgent(?:ly)?|emergency|ambulance|a&e|hospital"
    r"|within (?:the|an|\w+) (?:hours?|days?)|this week|casualty)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|should|when|whenever|once|any|means?|needs?|calls? for|whether|until|who"
    r"|anyone|in case|provided|while|before|after)\b",
    re.IGNORECASE,
)
# Before these, what is said of "you" is a case that is supposed and not stated.
_SUPPOSED = re.compile(
    r"\b(?:if|unless|when(?:ever)?|once|until|till|before|after|while|whether|that|what(?:ever)?"
    r"|as long as|so|in case|because|where|anything|the more|as soon as|should)\W+(?:\w+\W+){0,3}$",
    re.IGNORECASE,
)


def for_another(reply: str, letter: str, message: str) -> str:
    """The sentences of `reply`, which answers `letter`, that may be said to one who writes
    `message`: perhaps none."""
    said = (reply[start:end] for start, end in sentences(reply))
    return " ".join(each for each in said if may_be_said(each, letter, message))


def may_be_said(sentence: str, letter: str, message: str) -> bool:
    """Whether it can be understood alone, and says nothing of the one who wrote `letter`."""
    return stands_alone(sentence) and not of_another(sentence, letter, message)


def numbers(text: str) -> set[str]:
    """Numbers in digits and in words, three and more."""
    return {number.lower() for number in _NUMBER.findall(text)}


def stems(text: str) -> set[str]:
    """The beginnings of its content words."""
    return {w[:STEM] for w in _WORD.findall(text.lower()) if w not in STOPWORDS_EN_PLUS}


def of_another(sentence: str, letter: str, message: str) -> bool:
    """Whether `sentence`, of the reply to `letter`, says what belongs to that patient alone, to one
    who writes `message`."""
    return (
        _AGE.search(sentence) is not None
        or _DATE.search(sentence) is not None
        or is_urgent(sentence)
        or _of_their_people(sentence, message)
        or _repeats(numbers, sentence, letter, message)
        or _repeats(named_in, sentence, letter, message)
        or _states(sentence, message)
        or _retells(sentence, letter, message)
    )


def is_urgent(sentence: str) -> bool:
    """Whether it sends somebody to be seen at once, with no condition that leads to it."""
    return _URGENT.search(sentence) is not None and _CONDITION.search(sentence) is None


def stands_alone(sentence: str) -> bool:
    """Whether it can be understood without what came before it, and is no doctor's own ("I")."""
    return (
        _HANGS.match(sentence) is None
        and _FIRST.search(sentence) is None
        and sentence.endswith(".")
    )


def _repeats(named: Callable[[str], set[str]], sentence: str, letter: str, message: str) -> bool:
    """Whether it names what the letter names and the message does not."""
    theirs = named(sentence)
    return bool(theirs and (theirs & named(letter)) - named(message))


def _of_their_people(sentence: str, message: str) -> bool:
    return any(kind.search(sentence) and not kind.search(message) for kind in _PEOPLE)


def _states(sentence: str, message: str) -> bool:
    """Whether it says of "you" what no condition supposes, and this patient did not write."""
    said = stems(message)
    for match in _YOURS.finditer(sentence):
        thing = match[0].lower().removeprefix("your").strip()[:STEM]
        if thing not in said:
            return True
    for match in _STATED.finditer(sentence):
        if _SUPPOSED.search(sentence[: match.start()]) is None:
            return True
    return False


def _retells(sentence: str, letter: str, message: str) -> bool:
    words = stems(sentence)
    least = max(SHARED, SHARED_SHARE * len(words))
    shared = words & stems(letter)
    return len(shared) >= least and len(shared - stems(message)) >= least
