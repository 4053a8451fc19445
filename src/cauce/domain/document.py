"""How long a document is, by what is known of it: its text, the pages that its bytes name, or no more than how many bytes they are.

Each look costs time in proportion to the bytes; `longest` is free. What stands at an address is not known here.
"""

import binascii
import re
from urllib.parse import unquote

BYTES_PER_PAGE = 50_000
"""Of a document whose pages cannot be counted: 50 MB or 1,000 pages are the most that Gemini takes ("Document understanding")."""

LEAST_PER_PAGE = 200
"""Bytes. What a page, its content and their places in the table take, however empty it is: nothing has more pages than that."""

_TEXTS = ("text/", "application/json", "application/xml")
_TIMED = ("audio/", "video/")
_SCHEME = "data:"
_BASE64 = 3 / 4
"""Bytes per character."""

# ISO 32000-1, 7.7.3.3: the dictionary of each page has this type, and the nodes of the tree above it have `Pages`.
_PAGE = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_HIDING = b"/ObjStm"
"""Streams of compressed objects, which pages may be among (7.5.7)."""


def text_of(url: str) -> str | None:
    """What a document of text says; None of one that is no text, or not at hand."""
    if not _at_hand(url) or not _kind(url).startswith(_TEXTS):
        return None
    head, _, payload = url.partition(",")
    if not head.endswith(";base64"):
        return unquote(payload, errors="replace")
    return _bytes(payload).decode("utf-8", "replace")


def pages_of(url: str) -> float:
    """Pages of a document that is no text, roughly: at least one."""
    if not _at_hand(url) or _kind(url).startswith(_TIMED):
        return 1.0
    by_size = _size(url) / BYTES_PER_PAGE
    if _kind(url) != "application/pdf":
        return max(1.0, by_size)
    whole = _bytes(url.partition(",")[2])
    named = min(len(_PAGE.findall(whole)), _size(url) / LEAST_PER_PAGE)
    return max(1.0, named if named and _HIDING not in whole else max(named, by_size))


def longest(url: str) -> float:
    """Pages that the document has not more of, whatever is in it."""
    return 1.0 + (len(url) / LEAST_PER_PAGE if _at_hand(url) else 0.0)


def is_doubtful(url: str) -> bool:
    """Whether its length says little of its tokens: of what a page is, providers make from 258 tokens to 3,000."""
    return _at_hand(url) and _size(url) > BYTES_PER_PAGE and not _kind(url).startswith(_TEXTS)


def _at_hand(url: str) -> bool:
    return url[: len(_SCHEME)].lower() == _SCHEME


def _kind(url: str) -> str:
    """The content type, without what it says besides."""
    return url[len(_SCHEME) : url.find(",")].partition(";")[0].strip().lower()


def _size(url: str) -> float:
    return len(url) * _BASE64


def _bytes(payload: str) -> bytes:
    """What base64 stands for; nothing where it is none. The upstream will say so."""
    try:
        return binascii.a2b_base64(payload)
    except ValueError:
        return b""
