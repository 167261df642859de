"""What doctors' replies on the web say beside medicine: advertisements and courtesies.

Owns how they are known. An advertisement sends the reader to a doctor online, behind an arrow or a
link, or to the writer; a link alone makes none. Advice to see somebody stays, online or not, if it
says when, why or what for. Does not know what is done with a reply.
"""

from __future__ import annotations

import re

LONGEST, MOST = 300, 2_000  # characters of a sentence, and of a reply, of nothing but courtesy
_NOUN = (
    r"(?:quer(?:y|ies)|questions?|doubts?|concerns?|issues?|problems?|clarifications?"
    r"|uncertaint(?:y|ies)|dudas?|preguntas?)"
)
# A link ends before the punctuation behind it, and is taken whole or not at all.
_PATH = r"(?:[^\s<>\".,;:!?)]|[.,;:!?)](?=[^\s<>\"]))"
_LINK = rf"(?:(?:https?:/|www\.){_PATH}++|\b[\w-]+\.(?:com|org|net|in)\b(?:/{_PATH}*+)?+)"
_ARROW = r"(?<![-=])(?:[-=\u2013\u2014]+\s?>+|>>+|[\u2192\u2794\u27a1])"
_ONLINE = r"(?:on-?line|en l[ií]nea)"
_SERVICE = (
    rf"(?:(?:i?cliniq|health ?care ?magic|hcm|healthtap|practo|just ?answer|urldoc)\b(?:{_LINK})?)"
)
_PROFESSION = (
    r"(?:[\w/-]*(?:(?:olog|iatr)ists?|(?:[aei]tr|paed|oped|phys|diet)icians?|dietitians?"
    r"|surgeons?|dentists?|doctors?|specialists?|experts?|therapists?|nutritionists?"
    r"|counsell?ors?|[oó]log[oa]s?|iatras?|cirujan[oa]s?|m[eé]dic[oa]s?|especialistas?)|ent)\b"
)
_MORE = (
    r"\b(?:for (?:any |your )?(?:more|further|additional|other|follow[- ]?up)(?: [\w']+){0,4}?,?"
    r"|(?:if you (?:still )?have|in case of) (?:any )?(?:more |further |other |additional )?"
    rf"{_NOUN},?"
    rf"|para (?:m[aá]s|mayor) [^\W\d]+,?|si tiene (?:m[aá]s |otras? |alguna )?{_NOUN},?) "
)
_PLEASE = (
    r"(?:(?:you|can|may|could|should|would|always|please|kindly|also|directly|to|i|we|suggest"
    r"|recommend|advise|feel free|(?:don't|do not) hesitate|click (?:here|below)|come back|and"
    r"|if you (?:wish|want|would like|like|need)) )*+"
)
_ASK = (
    r"(?:consult|ask|contact|revert(?: back)?|get back to|reach(?: out to)?|message|access"
    r"|(?:talk|speak|write) to|(?:chat|discuss|follow[- ]?up|speak) with|consulte|pregunte)"
)
_FIRST = r"(?:^|(?<=[.!?\n>])|(?<=[.!?] ))\s*"  # of a sentence
# What lies between, on this side of whatever makes it advice; a line may be wrapped.
_BETWEEN = (
    r"(?:(?!\b(?:if|when|unless|because|since|call|dial)\b)"
    r"(?:[^.;!?\n]|\n(?!(?-i:[A-Z][a-z])|[-*\u2022\d\n]))){0,120}?"
)
# A profession; "your doctor" is one whom the patient knows.
_DOCTOR = (
    rf"(?:(?:{_BETWEEN}\b(?:with|an?|our|one of our|una?))? (?:(?!your\b)[\w&/,-]+ ){{0,5}}?"
    rf"{_PROFESSION})"
)
_BY = r"(?:at|on|via|through|from|with|by|click (?:here|below|on)|this link)"
_AT = rf"(?:(?:[ ,:]+{_BY})+[ :]+{_LINK}|[^\w.!?]*{_LINK})"
_HELP = rf"(?: for (?:any |more |further |other )*(?:details|information|help|advice|{_NOUN}))"
_SOON = r"(?: (?:now|today|here|directly|any ?time|24 ?[x/] ?7))"
_ARROWED = rf"[ .:]*{_ARROW} *(?:{_LINK})?"
# What may follow, lest the sentence goes on: an end, or the next one without a full stop.
_STOP = r"(?= *(?:[.!?)]+(?: |$|(?-i:[A-Z]))|$))"
_OVER = rf"(?:{_STOP}|(?= +(?-i:[A-Z])))[.!]?"
_SOLD = (
    r"\b(?:our (?:[\w']+ )?(?:app|newsletter|channel)|my (?:[\w']+ )?(?:page|profile|website|blog)"
    rf"|(?:coupon|promo) code|paid consultation|{_SERVICE}|whatsapp)\b"
)
_THERE = rf"(?:{_AT}|[ ,:]+{_BY} {_SERVICE})"
_ADVERTISEMENTS = (
    # Who is to be consulted, and where.
    rf"(?:{_MORE}{_PLEASE}{_ASK}|{_FIRST}{_PLEASE}(?:consulte?|revert(?: back)?))"
    rf"{_DOCTOR} {_ONLINE}{_HELP}?{_THERE}?(?:{_ARROWED})?",
    rf"(?:{_MORE}|{_FIRST}){_PLEASE}(?:{_ASK}|book an appointment with)"
    rf"{_DOCTOR}(?: {_ONLINE})?{_SOON}?{_THERE}",
    # Whatever points there with an arrow.
    rf"(?:{_MORE}|{_FIRST}|,? and ){_PLEASE}(?:{_ASK}|get|book|seek)\b"
    rf"{_BETWEEN}\b{_ONLINE}\b{_BETWEEN}{_ARROWED}",
    rf"{_MORE}{_PLEASE}{_ASK}\b{_BETWEEN}{_ARROWED}",
    # The writer, who can be had elsewhere.
    rf"(?:{_MORE}|{_FIRST}){_PLEASE}(?:{_ASK}|visit) (?:me|us)\b"
    rf"{_BETWEEN}(?:{_LINK}|{_SERVICE}|\bwhatsapp\b){_HELP}?",
    rf"\bfor (?:any |your |more |further )*(?:follow[- ]?up|{_NOUN}),? {_PLEASE}{_ASK}{_AT}",
    # What is for sale.
    rf"(?:{_MORE}|{_FIRST}){_PLEASE}(?:download|subscribe|visit|follow|like|join|rate|use|chat)\b"
    rf"{_BETWEEN}{_SOLD}(?:{_BETWEEN}{_LINK})?{_BETWEEN}{_STOP}",
)
_ADVERTISEMENT = re.compile(
    rf"(?:{'|'.join(_ADVERTISEMENTS)}){_OVER}".replace(" ", r"\s"), re.MULTILINE | re.IGNORECASE
)
# No advertisement is without one.
_SENT = re.compile(rf"{_ONLINE}|{_ARROW}|{_LINK}|{_SOLD}".replace(" ", r"\s"), re.IGNORECASE)
_POINTER = re.compile(rf"\s*{_ARROW}\s*(?i:{_LINK})[.]?|\s*{_ARROW}(?:[\s.]*{_ARROW})*+[\s.]*$")

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
