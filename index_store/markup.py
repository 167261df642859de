"""HTML as the text that it shows.

Owns what counts as HTML: a tag that there is, or an entity; a text with a bare < is none. Does not
know whose text it is.
"""

from __future__ import annotations

import html
import re
from functools import cache

_BLOCKS = (
    "address article aside blockquote br caption dd details div dl dt fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main nav ol option p pre section"
    " summary table tbody td tfoot th thead tr ul"
)
_UNSHOWN = "audio|canvas|iframe|noscript|object|svg|template|textarea|title|video"
_LATER = "bdi data dialog frame g main nobr path picture search slot template xml"  # than lxml's
_EMPTY = "controls disabled checked hidden loop muted nowrap open required selected"
_ENTITY = re.compile(r"&(?:[a-z]{2,8}\d?|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_UNENDED = re.compile(r"&(?:(?:nbsp|amp|quot)(?!;)|(?:lt|gt)(?![\w;=]))", re.IGNORECASE)
_NUMBERED = re.compile(r"&#(?:\d+|x[0-9a-f]+);?", re.IGNORECASE)
# What shows nothing; of an element that is never closed the tag alone, for the rest is text.
_AROUND = re.compile(
    rf"<({_UNSHOWN})\b[^<>]*>.*?</\1\s*>|</?(?:{_UNSHOWN}|plaintext)\b[^<>]*>"
    r"|<\?[a-z][^<>]*>|<!doctype[^<>]*>|<!\[CDATA\[|\]\]>",
    re.IGNORECASE | re.DOTALL,
)
# What a page has once: a cell that holds several pages, or the shell of one, is their text.
_SHELL = re.compile(r"</?(?:html|head|body|frameset)\b[^<>]*>", re.IGNORECASE)
_LOST = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0e-\x1f]")  # what XML cannot hold
_ROUNDS = 3  # some sets have escaped what was escaped


def text_of(text: str) -> str:
    """What a browser would show of `text`, a paragraph or item of a list in a line of its own."""
    for _ in range(_ROUNDS):
        before = text
        if "<" in text:
            text = _AROUND.sub("", text)
            tag, bare = _tags()
            if tag.search(text):
                text = _shown(bare.sub("&lt;", _LOST.sub("", text)))
        if "&" in text:
            text = _NUMBERED.sub(_character, _UNENDED.sub(r"\g<0>;", text))
            if _ENTITY.search(text):
                text = html.unescape(text)
        if text == before:
            break
    return text


def _character(reference: re.Match[str]) -> str:
    """The reference again, or nothing if it is to none that there is."""
    told = reference[0]
    return told if len(told) <= 10 and html.unescape(told) not in ("", "\ufffd") else ""


@cache
def _tags() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds a tag, and what finds a < that begins none."""
    from lxml.html import defs

    names = defs.tags | {*_LATER.split(), *_BLOCKS.split()}
    name = rf"(?:{'|'.join(names)}|(?:[ovwm]|[a-z]\w+):[a-z]\w*)"  # and what word processors write
    empty = "|".join(_EMPTY.split())
    tag = rf"/?{name}(?:\s+(?:{empty}))*(?:\s+[\w:-]+\s*=[^<>]*)?\s*/?>|!--"
    return re.compile(rf"<(?:{tag})", re.IGNORECASE), re.compile(rf"<(?!{tag})", re.IGNORECASE)


def _shown(text: str) -> str:
    from lxml import etree
    from lxml import html as parser

    deep = parser.HTMLParser(huge_tree=True)  # which lxml would cut else
    root = parser.fragment_fromstring(_SHELL.sub("", text), create_parent="div", parser=deep)
    etree.strip_elements(root, etree.Comment, "script", "style", with_tail=False)
    for element in root.iter(*_BLOCKS.split()):
        if element.tag in ("td", "th"):
            element.tail = f" {element.tail or ''}"
            continue
        if element.tag == "li":
            element.text = f"- {element.text or ''}"
        # A source's own line ends are spaces to a browser, and stay here: many have no others.
        if element is not root:
            element.tail = f"\n{element.tail or ''}"
            previous = element.getprevious()
            if element.tag == "br":
                continue
            if previous is not None:
                previous.tail = f"{previous.tail or ''}\n"
            elif (parent := element.getparent()) is not None:
                parent.text = f"{parent.text or ''}\n"
    return str(root.text_content())
