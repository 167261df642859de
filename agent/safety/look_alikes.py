"""What only looks like an emergency.

Owns what takes a red flag back where it stands: a negation, the distant past, a question of
knowledge, a leaflet, a film, a manner of speaking, a mild degree, an ordinary complaint. Knows
the kinds by name only, and nothing of the red flags themselves.
"""

import re

from agent.safety.red_flags import VOCABULARY
from agent.safety.wording import PRONOUN, compiled, spelt_out


def is_taken_back(message: str, start: int, end: int, kind: str) -> bool:
    """Whether the words around `message[start:end]`, a red flag of `kind`, take it back.

    `message` is folded. The sentence counts, and what stands shortly before and after it.
    """
    before = message[max(0, start - 250) : start]
    sentence = before[before.rfind("|") + 1 :]
    match, after = message[start:end], message[end : end + 120]
    rest = after.split("|", 1)[0]
    opening = sentence[sentence.rfind(",") + 1 :]
    clause, whole = opening + match + rest.split(",", 1)[0], sentence + match + rest
    return (
        _is_denied(opening, match, after)
        or _is_past(opening, clause, kind)
        or _JOKE.search(clause) is not None
        or _is_unreal(sentence, match, whole)
        or _is_fiction(before, match, rest, whole)
        or _is_ordinary(whole, after, kind)
    )


def frames(message: str) -> set[str]:
    """What `message`, which is folded, speaks of besides: "past", "question", "joke", "fiction"."""
    cues = {"past": _PAST, "question": _UNREAL, "joke": _JOKE, "fiction": _FICTION}
    return {name for name, cue in cues.items() if cue.search(message)}


def _phrases(rule: str) -> re.Pattern[str]:
    return compiled(spelt_out(rule, VOCABULARY))


# --- Denied, or mild ------------------------------------------------------------------------------

_STOP = (
    rf"(?:{PRONOUN}|and|or|but|since|so|when|while|after|before|until|from|due|with|it|its|you|"
    "this|that|these|who|now|just|still|only|well|good|right|great|ok|better|sure|able|idea|one|"
    "longer|matter|doubt|help|relief|luck|anything|such|like|time|use|warning|reason|sleep|"
    "improvement|change|smoker|effect)"
)
_WORDS = rf"(?: (?!{_STOP}\b)\w++)"
_NEGATED = re.compile(
    r"\b(?:no|nobody|none of|without|den(?:y|ies|ied|ying)|neither|nor|zero|free (?:of|from)|"
    r"negative for|absence of|nothing like|instead of|rather than|ruled out|never (?:had|have|been|"
    r"experienced|attempted|tried|thought|thinking|felt|any)|not|(?:not|dont|doesnt|didnt|havent|"
    r"hasnt|hadnt|isnt|arent|wasnt|werent) (?:have|had|having|has|got|get|getting|feel|feeling|"
    r"been|experienc\w+|notice\w*|a|an|any|in|at|really|currently|actually|suffer\w*|seem\w*|"
    r"look\w*|be|want|about|think|thinking|planning))"
    rf"{_WORDS}{{0,4}}(?: or{_WORDS}{{1,4}}){{0,6}}(?: or)? $|"
    r"\b(?:isnt|arent|wasnt|werent|dont|doesnt|didnt|havent|hasnt|never) (?:\w++ or )?$|"
    r"\b(?:no longer|wouldnt|wont|never) (?:ever |actually |really |having |think about |"
    r"thought of ){0,2}$|"
    r"\b(?:dont|doesnt|didnt) think [^,|]{0,30}$"
)
_MILD = re.compile(
    r"\b(?:slight|slightly|mild|mildly|minor|tiny|faint|occasional|a bit|a little|bit of) "
    r"(?:\w++ ){0,2}$"
)
# Only these come in mild degrees: a slightly drooping face is as bad as a drooping one.
_DEGREE = re.compile(
    r"pain|hurt|ach|tight|pressure|discomfort|short|breathless|burn|bl[oe]e?d|cramp|dizz|faint|"
    r"heavy"
)
_UNLIKE_BEFORE = re.compile(r" (?!or )(?:\w++ ){0,2}(?:like (?:this|that|it)|this bad|so bad)\b")
_DENIED_AFTER = re.compile(
    r" [|,] (?:none|negative|(?:no|never|nope)(?= [|,]|$))|.{0,20} for (?:\w+ )?years\b"
)


def _is_denied(opening: str, match: str, after: str) -> bool:
    if _NEGATED.search(opening) and not _UNLIKE_BEFORE.match(after):
        return True
    if _MILD.search(opening) and _DEGREE.search(match):
        return True
    return _DENIED_AFTER.match(after) is not None


# --- Past -----------------------------------------------------------------------------------------

_PAST_BEFORE = re.compile(r"\b(?:history of|previous|former|earlier|past|prior) (?:\w++ ){0,2}$")
_PAST = _phrases(
    r"""
    (19|20)\d\d|years back|once (in|at|when|as)|at (the age of )?(1\d|2\d)(?= [,|])|at (our|my|
    her) first|in (uni|spring|
    summer|autumn|winter)|(?<!since )last (year|month|summer|winter|spring|autumn|christmas|
    easter)|(years?|
    yrs|months|decades?|ages) (ago|back)|known (for|since)|when (i|he|she|they) (was|were) (a|an|
    young|younger|little|small|<number>|still|pregnant)|in (school|college|university|primary
    school|kindergarten|high school)|as (a|an) (child|kid|baby|teenager|teen|infant|toddler)|used
    to|back in|previously|formerly|recover(ed|y|ing)? from|ever since|long ago|once had|had ~3 once|
    had ~4 before(?= [,|]|$)|in (my|his|her) (childhood|past|youth|twenties|teens|thirties|forties)|
    in the past|in (january|february|march|april|may|june|july|august|september|october|november|
    december)|survived|(since|after) (my|his|her) (stroke|heart attack)|(died|dies) ~2 (of|from|in|
    after)|passed away|lost (my|his|her|our|a) ~1 to|childhood|post stroke|(in|during|after|with|
    before) (my|our|her|the) (first|last|previous|second) (pregnancy|child|baby|birth|delivery|
    marriage|job)|with my first|after the war
    """
)
_PRESENT = _phrases(
    """
    (now|today|tonight|again|currently|right now|just|back)(?! (fine|well|ok|happy|better|healthy|
    wonder*|want* to know|curious|asking|in|then|i volunteer))
    """
)
_WEEKS_AGO = re.compile(r"\b(?:last week|weeks? ago)\b")
_OVER_IN_WEEKS = {"bleeding", "seizure", "unconscious", "anaphylaxis", "burn"}


def _is_past(opening: str, clause: str, kind: str) -> bool:
    if _PAST_BEFORE.search(opening) or (_PAST.search(clause) and not _PRESENT.search(clause)):
        return True
    return kind in _OVER_IN_WEEKS and _WEEKS_AGO.search(clause) is not None


# --- A question, a leaflet, another creature; a manner of speaking --------------------------------

_UNREAL = _phrases(
    r"""
    what (is|are|were|does|do|exactly|happens|can|would|could|might|should|to do if) ~4 (signs?|
    symptoms?|cause|causes|risks?|difference|chances?|treatment|first aid|definition|warning|
    recovery|stages|types|complications|happen|during|when someone|if (someone|somebody|a|an|anyone|
    people|you|i get|i ever))|what (causes?|(\w+ )?counts as|(do|should) you do|happens)|
    what(s| is| are)(?! (this|that|it|wrong|happening|my|the|going|these|causing|up|to|best|good))|
    (how|why) (does|is|are|do)(?! (my|this|it|i|he|she|we|you stop))|(explain|define|describe|
    difference) ~4 (means?|meaning|between)|which is worse|how (to|do (you|i|we)|can (you|i|we|one))
    (tell|know)( \w+)? (if|whether|when)(?! (im|i|my|it|its|he|she|this))|how (long|fast|often|
    quickly) (can|do|does|would|until|before)(?! i)|(how|why|when|where|who|which|what) (do|does|
    can|could|is|are|would|should|many|long|common|often|likely|dangerous|to|soon|fast|quickly|much)
    ~4 (prevent*|avoid*|reduce|lower|recogni[sz]e|spot|distinguish|differentiate|identify|treat*|
    spread|diagnos*|caused|recover*|worry|people|patients|doctors|first aider|paramedics|risk|
    hospital*|die of|die from|common*|tell the|tell if someone|tell if a|know if someone|differ|
    faint|different|happens?|help someone|help a|protect|call|store|lose|support)( (my|his|her|our)
    \w+)?|when is|(early|warning|common|main|typical) (signs|symptoms)|(can|could|does|do|may|might|
    will|would|did) ~6 (causes?|trigger|lead to|result in|prevent|increase|reduce|raise|lower)(?! ~1
    (this|my|these))|could (he|she|they) (stop|have|get|die)|(can|do|does|could) (a|an|you(?! (help|
    please|tell|see|call|send|advise))|one|people|someone|children|kids|babies|women|men|anyone|
    they|everyone|heart attacks|strokes) ~6 (have|get|die|suffer|survive|feel|faint|recover|hurt|
    choke|lose)|(can|could|does) (anxiety|stress|panic|gas|reflux|gerd|heartburn) ~3 (feel|give|
    make)|(is|are)(?! (it|this|that|my|these|the)) ~4 (contagious|hereditary|genetic|curable|always|
    true that|painful|common|(normal|dangerous|usual|possible|expected) (in|for|during|after|among|
    with|at|if))|is it (true|possible to|common to|rare)|is there a|how come|(if|when) (someone|
    somebody|(a|an) (person|child|baby|toddler|man|woman|adult|patient)|anyone|somebody|people|you|
    one|children|babies)|if (i|he|she|we) (ever|get|were|had|should)|in case (of|i|he|she)|when to
    (call|go)|(who|people|anyone) (is|are) at risk|(risks?|chances?|likelihood|odds) of|(worried|
    afraid|scared|fear|terrified|paranoid|anxious) (of|about|that i could|that i might|i could|i
    might) (getting|having an?|get|have|choking)|(prevent*|avoid|protect)( my \w+)?|translate|
    explain|define|meaning of|poem|essay|homework|first aid (course|kit|class|training|applies)|
    (studying|revising|studied) for|(for|my|an|the) exam|lecture|statistics|suppose|imagine|
    lets say|say (a|an|my|your|someone|somebody)|(if|when) (a|an) \w+|if (my|your|our)
    \w+ (ever|told|said|were|got)|(who|whom) (to|would|should|do)|in (theory|general|advance)|
    (causes?|reasons?|interactions?|risk
    factors|first aid|signs|symptoms) (of|for|between|in)|known side|medical student|how would (i|
    you|we) ~1 (recogni[sz]e|know|spot)|
    (scared|afraid|frightened|terrified|petrified|fear*) of(?! (him|her|my|what|myself|it|going))|
    (always|i|we) (fear|worry|dread)|
    asks (who|why|what|how|whether)|(do|does) (lifeguards?|medics|teachers|nurses|vets|\w+s) do|
    student nurse|nursing
    student|antidote|tell me (about|what|how)|(information|info|facts|curious|wondering|talk|
    presentation|learn*) (on|about|whether)|leaflet|package insert|side effects?|label|warns?|
    warnings?|(may|can|might|could) cause|on the box|information sheet|read (that|about|online|
    somewhere|on|\w+ (can|may|causes?))|reading about|lists?|listed|googl* ~1 (it|symptoms|that|
    about|online)|website|internet|(says|
    say|said)( on)?( that)?( it)? (can|may|might)|instructions|(said|told|says|advised) ~2 to ~3
    (call|go|come|ring|watch) ~3 (for|if|when)( i (have|get|feel|had))?|look out for|watch for|asked
    (me )?(whether|if|about)( i (have|had|get|feel))?|(dog|cat|puppy|kitten|hamster|parrot|rabbit|
    horse|dogs|cats|laptop|computer|phone|car|server|app|site|website|screen|tv|plants?|market|
    economy) (had|has|is|was|ate|drank|swallowed|keeps|just|isnt|wont|cant|died|collapsed|got|
    doesnt|froze|crashed)
    """
)
# After one of these words the patient speaks of a real person again.
_RESUMED = re.compile(
    rf"(?:,|\|)[^|]*\b{PRONOUN}\b|"
    r"\b(?:my|im|ive|i have|i feel|hes|shes|mum|mom|dad|gran|grandad|grandpa|hubby|now|"
    r"today|tonight|this morning|suddenly)\b"
)
_JOKE = _phrases(
    """
    laughing|laughed|laughter|so funny|hilarious|the joke|of embarrassment|so embarrass*|
    fak(e|ed|es|ing)|boredom|boring|curiosity|overdos* ~3 chocolate|squad|prevention|(saw|heard)
    the (price|bill)|lol|haha|in
    debt|netflix|figure of speech|(in|with|under) (work|emails|paperwork|homework|debt)|(nearly|
    almost|gave me|give me|gives me|giving me|gave her|gave him) (a |had a |have a |having
    a )?(heart attack|stroke)|(will|would|going to) have a (heart attack|stroke|fit) when|seizure
    of|stroke of|(work|job|marriage|relationship|boss) is ~2 suffocat*|suffocating ~1 in|jeans|
    (nearly|almost) (passed out|fainted|died|choked) (when|with joy)|stabbed ~2 in the back(?! ..
    (knife|blood|bleed*|screwdriver))|gasping for a (coffee|cuppa|tea|pint|beer|drink|smoke)
    """
)


def _is_unreal(sentence: str, match: str, whole: str) -> bool:
    cues = [cue for cue in _UNREAL.finditer(whole) if cue.start() < len(sentence)]
    return bool(cues) and _RESUMED.search(sentence + match, cues[-1].end()) is None


# --- On a screen, in a book -----------------------------------------------------------------------

_FICTION = _phrases(
    r"""
    (the|a|this|that|in|new|favourite|favorite|horror|my) (last |latest |first |new |
    final )?(films?|movies?|novels?|episodes?|memoir|thriller|hero|heroine|villain|detective|
    protagonist|actor|actress|comic|manga|anime|podcast|documentary|musical|opera)|novels|
    characters?|emperor|history (teacher|class|lesson)|(tv|the|that|this|crime|medical|hospital|
    drama|netflix|soap|favourite|favorite) (series|drama|show|opera)|tv show|sitcom|season finale|
    (saw|watched|seen) (a|the|some|this) (video|clip|film|movie)|(in|from|of|on|reading|read) (the|
    a|an|this|that|my|his|her) (\w+ )?(book|show|story|video game|computer game|school play|song|
    script|telly)|on (tv|netflix|the news|the radio|telly|youtube|tiktok|television)|song about|book
    club|scene with|(writing|wrote) a|greys anatomy|on (house|er|casualty|scrubs|holby)|in er|
    scene|episode|cartoon|(a|the) (youtuber|vlogger|influencer|celeb*|footballer|singer)|
    on (facebook|eastenders|instagram)|
    in the (papers?|newspapers?)|fairy tale|dolls?|juliet|snow white|a
    dream|dreamt|dreamed|nightmare|the plot|school play|in the series
    """
)
_STRANGER = _phrases(
    """
    (a|the|some|one|main|this) ~1 (man|woman|guy|girl|boy|patient|character|kid|person|lady|
    teenager|hero|heroine|doctor|nurse|villain|detective|queen|king)|realistic|in real life|
    really work
    """
)
_REALITY = re.compile(
    r"\b(?:i (?:cant|feel|have|got|started|need|took)|im having|ive|got|started|since|minutes|"
    r"when (?:i|my)|my (?:chest|arm|face|throat|left|right|head|heart|whole|stomach|baby|son|"
    r"daughter|husband|wife|mum|mom|dad|father|mother|partner|boyfriend|girlfriend|brother|sister|"
    r"gran\w*|child|toddler|kid|uncle|aunt|flatmate))\b"
)


def _is_fiction(before: str, match: str, rest: str, whole: str) -> bool:
    # A film named a sentence earlier is still meant only when the sentence is about a stranger.
    told = before + match + rest if _STRANGER.search(whole) else whole
    return _FICTION.search(told) is not None and _REALITY.search(whole) is None


# --- An ordinary complaint, or over by now --------------------------------------------------------

_ALARMING = _phrases(
    """
    sudden*|severe*|worst|unbearable|agony|crush*|sweat*|clammy|blue|collaps*|spread*|jaw|left arm|
    gr[ea]y|pour*|gush*|spurt*|soak*|clots|hours?|dizzy|weak|deep|peel*|large|huge|whole|both|
    pregnant|sick|swollen|wheez*|vomit*
    """
)
_ORDINARY = {
    "abdomen": "periods?|sit ups|constipat*|ate too much",
    "anaphylaxis": "cold|cold sore|dentist|mosquito|needles?|hay fever|tonsil*|chapped|dry",
    "bleeding": """
        gums?|brush*|shaving|shaved|paper|periods?|smear|spotting|haemorrhoid*|hemorrhoid*|piles|
        giving blood|gave blood""",
    "breathing": """
        nose|nostrils?|nasal|mask|jog*|(for a|go|when i) run|running|stairs|climb*|flights?|floors|
        exercis*|unfit|uphill|hill|gym|singing|paperwork|relationship|office|hot weather|dye|ink|
        jeans|lipstick""",
    "burn": """
        sun|sunburn*|beach|tongue|toast|calories|fingertip|thumb|coin|pea|fingernail|
        (small|tiny|little) ~3 (burn|blister)""",
    "cardiac": """
        push ?ups|gym|workout|work(ed|ing) out|bench|lifting|
        when i (press|cough|touch|sneeze|twist|bend)|muscle|spicy|costochondritis|sprint*|exams?|
        broke my heart|cough|coughing|press on it|to (the )?touch|bra""",
    "overdose": """
        (every|each) (morning|day|night|evening)|a day|daily|as prescribed|refus*|wont swallow""",
    "pregnancy": "braxton|irregular|spotting|mild|implantation|gums?|heartburn",
    "stroke": """
        dentist|injection|anaesthetic|slept|sleeping on|lying on|cold|cross legged|carpal|
        since birth|tennis|shoulder|typing|lost my voice""",
    "unconscious": "needles?|blood test|standing up|stand up",
}
_ORDINARY_COMPLAINT = {kind: _phrases(words) for kind, words in _ORDINARY.items()}
_WELL_AGAIN = _phrases(
    """
    (is|im|hes|shes|feels?|was|are) (now |all |completely |perfectly |totally |absolutely )?(fine|
    ok|okay|better|happy|well|playing|healed|normal)|(fine|ok|okay|better) (now|again|afterwards|
    after)|went away|it passed|(stopped|stops?) (by|on|after|within|quickly|itself|in|right away|at
    once|immediately)|(has|it|have|then) stopped|recovered|gone now|all good|otherwise (fine|well|
    ok)|acting normal*|no longer
    """
)
_BUT = re.compile(r"\b(?:but|until|then|however|now)\b")
_PASSES = {"breathing", "bleeding", "seizure", "unconscious", "head_injury", "burn", "infant"}


def _is_ordinary(whole: str, after: str, kind: str) -> bool:
    ordinary = _ORDINARY_COMPLAINT.get(kind)
    if ordinary and ordinary.search(whole) and not _ALARMING.search(whole):
        return True
    well = _WELL_AGAIN.search(after) if kind in _PASSES else None
    return well is not None and not _BUT.search(after, well.end())
