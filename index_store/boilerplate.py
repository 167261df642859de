"""What doctors' replies on the web say beside medicine: advertisements and courtesies.

Owns how they are known. An advertisement sends the reader to a service: it names it ("online", an
arrow, a link) and nothing that is to be done there. Advice to see somebody stays, online or not, if
it says when, why or what for. Does not know what is done with a reply.
"""

from __future__ import annotations

import re

LONGEST, MOST = 300, 2_000  # characters of a sentence, and of a reply, of nothing but courtesy
_LINK = r"(?:https?://|www\.)[^\s<>\"]+|\b[\w-]+\.(?:com|org|net|in)(?:/[^\s<>\"]*)?"
_ARROW = r"(?<!-)-+\s?>+"
_MORE = (
    r"for (?:any |your )?(?:more|further|additional|other|follow[- ]?up)(?: [\w']+){0,4}?,?"
    r"|if you (?:still )?have (?:any )?(?:more |further |other |additional )?"
    r"(?:quer(?:y|ies)|questions?|doubts?|concerns?),?"
)
_ASK = (
    r"(?:you (?:can|may|could) )?(?:please |kindly )?(?:also )?"
    r"(?:consult|ask|contact|revert(?: back)?|reach(?: out to)?|talk to|chat with|write to)"
)
_FIRST = r"(?:^|(?<=[.!?\n>])|(?<=[.!?] ))"  # of a sentence
# What may follow, lest the sentence goes on: an end, or the next one without a full stop.
_OVER = r"(?=\s*(?:[.!?)\n]|$|[A-Z]))"
_ADVERTISEMENT = re.compile(
    rf"(?:\b(?i:{_MORE}) (?i:{_ASK})|{_FIRST}\s*(?i:(?:please |kindly )?(?:consult|revert)))\b"
    rf"[^.!?\n]{{0,120}}?"
    rf"(?:\b(?i:online)\s*(?:{_ARROW}\s*)?(?i:{_LINK})?|{_ARROW}\s*(?i:{_LINK})?|(?i:{_LINK}))"
    rf"{_OVER}[.!]?",
    re.MULTILINE,
)
_SENT = re.compile(rf"online|{_ARROW}|{_LINK}", re.IGNORECASE)  # no advertisement is without one
_POINTER = re.compile(rf"\s*{_ARROW}\s*(?i:{_LINK})[.]?|\s*{_ARROW}[\s.]*$")

_NOUN = r"(?:quer(?:y|ies)|questions?|doubts?|concerns?|issues?|problems?|clarifications?)"
_ANY = rf"(?:any )?(?:more |further |other |additional |follow[- ]?up )*(?:health )?{_NOUN}"
_WRITE = (
    r"(?:ask|write|revert|contact|message|consult|get back|come back|reply|let me know|reach out"
    r"|tell me|discuss|post)"
)
_FREELY = (
    r"(?:please|kindly|do|feel free|don'?t hesitate|do not hesitate|never hesitate|you (?:can|may"
    r"|are welcome)|i am|i'm|i will be|happy|glad|here|there|available|at any time|any ?time|always"
    r"|then|so|to|and|in|with|for|help|answer|assist|writing|asking|contacting)"
)
_WHOM = r"(?:me|us|back|to|again|here|on|at|any ?time|directly|further|more|you|them|your|it|the)"
_GREETED = (
    r"(?:hi|hello|hey|dear|greetings|good (?:morning|day|evening|afternoon)|namaste|respected"
    r"|there|again|doctor|dr|sir|madam|ma'?am|user|friend|patient|questioner|mr|mrs|ms"
    r"|(?:and )?welcome(?: back)?(?: to [\w.]+(?: [\w.]+)?)?)"
)
_COURTESIES = (
    rf"{_GREETED}(?:[ ,]+{_GREETED})*",
    r"(?:and |many )?(?:thank(?:s| you)(?: (?:very|so) much| a lot)?|thanks again)"
    r"(?: (?:for|on|and) (?:[\w.'-]+ ?){1,9})?",
    r"(?:warm |best |kind |with )*(?:regards|wishes)|sincerely|yours|cheers|bye|all the best",
    r"take care(?: of your(?:self| health))?|get well soon|be well|stay (?:safe|healthy|blessed)"
    r"|god bless(?: you)?|have a (?:nice|good|great|healthy) (?:day|time|life|week|one)",
    r"(?:i )?(?:wish|wishing)(?: you)?(?: (?:all|a|an|the|good|very|speedy|quick|early|best|better"
    r"|healthy|happy|great|recovery|health|life|luck|of|and))+",
    r"(?:i )?(?:really |sincerely )?hope(?: that)? (?:it|this|that|these|my (?:answer|advice|reply"
    r"|suggestions?)|i|i have|i've|the (?:above|answer|information))(?: (?:will|would|may|has|have"
    r"|was|were|is|been|be|information|answer|able|to|of|some|really))*(?: (?:help(?:s|ed|ful)?"
    r"|answer(?:s|ed)?|clear(?:s|ed)?|useful|solve[sd]?|assist(?:s|ed)?|clarif(?:y|ies|ied)))"
    rf"(?: (?:to|you|your|all|the|out|in|some|way|{_NOUN}))*",
    r"i (?:can |could |do |fully |completely )*(?:understand|appreciate) your"
    rf"(?: (?:{_NOUN}|anxiety|worry|worries|situation|and|health))+",
    r"i (?:have |had |'ve )?(?:just |carefully |now )?(?:gone|went|read|reviewed|seen|checked"
    rf"|understood|noted)(?: (?:through|all|your|the|details|{_NOUN}|with|diligence|carefully"
    r"|thoroughly|message|history|case|and|it|completely|full|fully|here|in|detail))+"
    r"(?: and would like you to know that i am here to help you)?",
    rf"(?:if|in case) (?:you|there) (?:still |do )?(?:have|has|are|is|need) {_ANY}"
    rf"(?:,? (?:{_FREELY}|{_WHOM}|{_WRITE}|{_NOUN}|,))*",
    rf"(?:for {_ANY},? ?)?(?:{_FREELY} )*{_WRITE}"
    rf"(?:,? (?:{_FREELY}|{_WHOM}|{_WRITE}|if|you|have|{_ANY}))*",
    r"(?:i am|i'm|i will be|i would be|i'll be|we are|we will be|always|very|more than|here"
    r"|happy|glad|pleased|there)(?: (?:be|very|more|than|happy|glad|pleased|here|there|always|to"
    rf"|help|assist|answer|you|your|all|further|any|with|and|out|in|for|{_NOUN}))+",
    r"(?:please )?(?:accept|rate|vote|upvote|mark) (?:my|this|the) answer(?: [\w']+){0,4}",
)
_COURTESY = re.compile(rf"(?:{'|'.join(_COURTESIES)})", re.IGNORECASE)
_END = re.compile(r"(?<=[\w)\"'])[.!?]+(?=\s|$|[A-Z])|[\n;:]+|(?<=[.!?])\s+")


def without_advertisements(reply: str) -> str:
    """A reply without the advertisements in it, wherever they stand."""
    before = None if _SENT.search(reply) else reply
    while reply != before:
        before = reply
        reply = _POINTER.sub("", _ADVERTISEMENT.sub("", reply)).strip()
    return reply


def is_courtesy(reply: str) -> bool:
    """Whether nothing is said in it but what is polite."""
    if len(reply) > MOST:
        return False
    parts = (part.strip(" \t,.!?-") for part in _END.split(reply))
    return all(_polite(part) for part in parts if part)


def _polite(part: str) -> bool:
    """A sentence, or the pieces between its commas, each polite."""
    if len(part) > LONGEST:
        return False
    if _COURTESY.fullmatch(part):
        return True
    pieces = [piece.strip() for piece in part.split(",") if piece.strip()]
    return len(pieces) > 1 and all(_COURTESY.fullmatch(piece) for piece in pieces)
