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
_LINK = rf"(?:(?:https?:/|www\.){_PATH}++|(?<![\w-])[\w-]+\.(?:com|org|net|in)\b(?:/{_PATH}*+)?+)"
_ARROW = r"(?<![-=\u2013\u2014])(?:[-=\u2013\u2014]+\s?>+|>>+|[\u2192\u2794\u27a1])"
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


def _of(words: str) -> str:
    """Some of these words, each of which can be read in one way only, lest matching take long."""
    return rf"(?: (?:{'|'.join(words.split())}))+"


_ANY = rf"(?:any )?(?:more |further |other |additional |follow[- ]?up )*(?:health )?{_NOUN}"
_INFORMED = r"(?:information|assistance|details|guidance)"
_WRITE = (
    r"(?:ask|write|revert|contact|message|consult|get back|come back|get in touch|reply|let me know"
    r"|reach out|tell me|discuss|post)"
)
_FREELY = (
    r"(?:please|kindly|do|feel free|(?:don'?t|do not|never) hesitate|you (?:can|may"
    r"|are (?:always )?welcome)|i am|i'm|i will be|happy|glad|here|there|available"
    r"|(?:at )?any ?time|always|then|so|to(?: help| assist| answer)?|and"
    r"|in (?:writing|asking|contacting))"
)
_TO_ME = (
    rf"(?:{_FREELY}|{_WRITE}|(?:with |on |at )?(?:me|us)|back|again|directly|further|(?:for )?you"
    rf"|or|(?:in|on|at|through) (?:(?:this|the|our) (?:forum|platform|site|website)|{_SERVICE}))"
)
_SERVED = f"help assist answer guide you your all further any other follow follow-up up {_NOUN}"
_HELPED = (
    r"(?:help(?:s|ed|ful)?|answer(?:s|ed)?|clear(?:s|ed)?|useful|solve[sd]?|assist(?:s|ed)?"
    r"|clarif(?:y|ies|ied)|satisf(?:y|ies|ied))"
)
_BEEN = f"will would could can may has have was were is been be of able to some really {_HELPED}"
_NAME = r"(?:dr )?(?-i:[A-Z])[\w'-]*(?: (?-i:[A-Z])[\w'-]*){0,3}"
_CLOSE = (
    r"(?:(?:thanks|with|warm|warmest|best|kind|kindest|good) )*(?:regards|wishes)"
    r"|(?:yours )?(?:sincerely|faithfully|truly)(?: yours)?|yours|cheers|bye|all the best"
    r"|(?:un )?(?:cordial |fuerte )?(?:saludos?|abrazo)(?: cordial(?:es)?)?|atentamente"
)
_GREETED = (
    r"(?:hi|hello|hey|dear|greetings|good (?:morning|day|evening|afternoon)|namaste|respected"
    r"|there|again|doctor|dr|sir|madam|ma'?am|user|friend|patient|questioner|mr|mrs|ms|hola"
    r"|buen[oa]s (?:d[ií]as|tardes|noches)|estimad[oa]|amig[oa]"
    r"|(?:and )?welcome(?: back)?(?: to [\w.]+(?: [\w.]+)?)?)"
)
_COURTESIES = (
    rf"{_GREETED}(?:[ ,]+{_GREETED})*+|(?:brief|detailed) answer|ok(?:ay)?(?: thanks| thank you)?",
    r"(?:many |muchas )?(?:thank(?:s| you)(?: (?:very|so) much| a lot| again)?|gracias)"
    r"(?: (?:for|on|por)(?: [\w.'-]+){1,9})?",
    rf"(?:{_CLOSE})(?:[ ,]+{_NAME})?|(?:(?:i am|i'm|this is|my name is) )?dr {_NAME}(?: here)?",
    r"m ?d|mbbs|dnb|dm|mch|frcs|mrcp|facs|bds|mds|phd",  # behind a name
    r"take care(?: of your(?:self| health))?|get well soon|be well|god bless(?: you)?"
    r"|stay (?:safe|healthy|blessed)(?: and (?:safe|healthy|blessed))?|(?:best of|good) health"
    r"|have a (?:nice|good|great|healthy) (?:day|time|life|week|one)(?: ahead)?"
    r"|(?:good|best of) luck(?: to you| with (?:it|that|everything|your \w+))?"
    r"|cu[ií]d[ae](?:se|te)(?: mucho)?|que (?:se|te) mejor[ea]s?(?: pronto)?|(?:mucha )?suerte",
    r"(?:you(?:'re| are)(?: very| most| always)? )?welcome(?: any ?time)?|de nada"
    r"|(?:it(?:'s| is| was) )?(?:my|a) pleasure(?: to (?:help|assist|answer)(?: you)?)?",
    "(?:i )?(?:wish|wishing)(?: you)?"
    + _of(
        "all a an the good very speedy quick early best better healthy happy great recovery health"
        " life luck of and well"
    ),
    rf"(?=.*\b{_HELPED}\b)(?:i )?(?:really |sincerely )?(?:hope|hoping|trust)(?: that)? (?:it|this"
    r"|that|these|you|my (?:answer|advice|reply|suggestions?)|i|i've"
    r"|the (?:above|answer|information))"
    + _of(
        f"{_BEEN} information find my this advice reply you your all the out in way things for with"
        f" {_NOUN}"
    ),
    r"(?:i )?hope(?: that)? you(?:'re| are)?"
    + _of("fine well good ok okay doing keeping feel feeling get better soon now"),
    "espero(?: que)?"
    + _of(
        "haber(?:le|te)? haya le te esto mi respuesta sido [uú]til de ayuda ayud[eoa]\\w* resuelto"
        f" aclarado sus? tus? consulta {_NOUN}"
    ),
    r"(?:i am |i'm )?(?:so |very |really )*(?:glad|happy|pleased)(?: that| to (?:hear|know)"
    rf"(?: that)?)? (?:i|it|my (?:answer|advice|reply)|to have){_of(f'{_BEEN} you')}",
    rf"(?:did|does|has) (?:my|this|the) (?:answer|reply) {_HELPED}(?: you)?",
    r"(?:i )?(?:hope|hoping|looking|waiting|awaiting)"
    + _of("forward to for hear hearing from you your reply response soon back"),
    "i (?:can |could |do |fully |completely )*(?:understand|appreciate) your"
    + _of(f"{_NOUN} anxiety worry worries situation and health"),
    f"your {_NOUN} (?:is|are|was|has been|have been)"
    + _of(
        "very quite a an well received noted valid good great genuine understandable understood"
        " interesting important one and will be answered soon shortly"
    ),
    r"i (?:have |had |'ve )?(?:just |carefully |now )?(?:gone|went|read|reviewed|seen|checked"
    r"|understood|noted|answered)"
    + _of(
        f"through all your the details {_NOUN} with diligence carefully thoroughly message history"
        " case and it completely full fully here in detail above"
    )
    + "(?: and would like you to know that i am here to help you)?",
    "(?:(?:if|in case|should) (?:you|there) (?:still |do )?(?:have|has|are|is|need|require)"
    rf"|in case of) (?:{_ANY}|anything else(?: i can (?:help|assist) you with)?"
    rf"|(?:any |more |further |additional )+(?:help|{_INFORMED}))(?:,? (?:{_TO_ME}|{_NOUN}|,))*+",
    rf"(?:for {_ANY},? ?)?(?:{_FREELY} )*{_WRITE}(?:,? (?:{_TO_ME}"
    rf"|(?:for |with |if you have )?{_ANY}|if (?:i can|(?:there is|you have) anything|it|this)"
    rf"(?>{_of(f'{_SERVED} helps helped else me to')})?"
    rf"|(?:for|if you (?:need|require)) (?:any )?(?:more|further|additional) {_INFORMED}))*+",
    r"(?:i am|i'm|i remain|i will|i would|i'll|we are|we will|always|very|more than|here|happy|glad"
    r"|pleased|there)"
    + _of(
        "be try very more than happy glad pleased here there always available to for with and out"
        f" in may have my best {_SERVED}"
    ),
    r"(?:please |kindly )*(?:accept|rate|vote|upvote|mark)"
    + _of(
        r"my this the it answer reply discussion thread question as helpful useful with five \d"
        " stars? if you have no liked found"
    ),
    r"(?:please )?close (?:the|this) (?:discussion|thread|question)"
    r"|(?:please |kindly )*(?:give|leave|provide|share)(?: us)?(?: your| a)? feedback",
    rf"(?:quedo|estoy) a (?:su|tu) disposici[oó]n(?: para (?:cualquier|m[aá]s|otras?) {_NOUN})?",
    rf"si tiene (?:m[aá]s |otras? |alguna )?{_NOUN},?(?: (?:por favor|no dude en))*"
    r" (?:pregunt|consult|escr[ií]b|cont[aá]ct)\w+",
)
_COURTESY = re.compile(rf"(?:{'|'.join(_COURTESIES)})", re.IGNORECASE)
_END = re.compile(r"(?<=[\w)\"'])[.!?]+(?=\s|$|[A-Z])|[\n;:]+|(?<=[.!?])\s+")
_PIECES = re.compile(r",(?: and\b)?"), re.compile(r"&|\band\b")
_SHORT = re.compile(r"\b((?i:dr|mr|mrs|ms)|[A-Z])\.\s*")  # a full stop that ends no sentence
_SIGNED = re.compile(rf"(\b(?:{_CLOSE}))[,.!]*\s*\n\s*", re.IGNORECASE)


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
    reply = _SHORT.sub(r"\1 ", _SIGNED.sub(r"\1, ", reply.replace("\u2019", "'")))
    parts = (part.strip(" \t,.!?-()") for part in _END.split(reply))
    return all(_polite(part) for part in parts if part)


def _polite(part: str) -> bool:
    """A sentence, or each of its pieces, polite."""
    if len(part) > LONGEST:
        return False
    if _COURTESY.fullmatch(part):
        return True
    for between in _PIECES:
        pieces = [piece for each in between.split(part) if (piece := each.strip())]
        if len(pieces) > 1 and all(map(_polite, pieces)):
            return True
    return False
