"""HTML as the text that it shows.

Owns what counts as HTML: a tag that there is, or an entity; a text with a bare < is none. Does not
know whose text it is.
"""

from __future__ import annotations

import html
import re

_BLOCKS = (
    "address article aside blockquote br dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6"
    " header hr li main nav ol p pre section table tbody td tfoot th thead tr ul"
)
_INLINE = (
    "a abbr b big body center cite code del em font head html i img ins kbd label link mark meta"
    " o:p q s script small span strike strong style sub sup tt u"
)
_NAMED = (
    rf"/?(?:{'|'.join([*_BLOCKS.split(), *_INLINE.split()])})(?:\s+[\w:-]+\s*=[^<>]*)?\s*/?>|!--"
)
_TAG = re.compile(rf"<(?:{_NAMED})", re.IGNORECASE)
_BARE = re.compile(rf"<(?!{_NAMED})", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}\d?|#\d{2,7}|#x[0-9a-f]{2,6});", re.IGNORECASE)
_LOST = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0e-\x1f]")  # what XML cannot hold


def text_of(text: str) -> str:
    """What a browser would show of `text`, a paragraph or item of a list in a line of its own."""
    if _TAG.search(text):
        text = _shown(text)
    for _ in range(2):  # some sets have escaped what was escaped
        if _ENTITY.search(text):
            text = html.unescape(text)
    return text


def _shown(text: str) -> str:
    from lxml import etree
    from lxml import html as parser

    text = _BARE.sub("&lt;", _LOST.sub("", text))
    root = parser.fragment_fromstring(text, create_parent="div")
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
