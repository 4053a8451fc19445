"""How a model is asked to go on with an answer that another attempt began."""

from collections.abc import Sequence

import msgspec

from cauce.domain.message import Message, TextPart
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_tokens

QUOTED = 1500
"""Characters of the end of the answer that are quoted."""

_ASK = {
    "en": (
        "Your last answer was cut off by a network failure. It ended with the text between the markers. Go on exactly where it "
        "stops: write only what follows, in the same language, voice and format; repeat nothing of it, do not begin anew, do not "
        "mention the interruption. If it breaks off inside a word, go on with the rest of that word."
    ),
    "es": (
        "Un fallo de red cortó tu última respuesta. Terminaba con el texto que está entre las marcas. Sigue exactamente donde se "
        "detiene: escribe solo lo que viene después, en el mismo idioma, tono y formato; no repitas nada de ello, no empieces de "
        "nuevo y no menciones la interrupción. Si se corta dentro de una palabra, sigue con el resto de esa palabra."
    ),
}
_CALL = {
    "en": "It was about to call a tool ({}): call it if it is still needed, and write nothing about it.",
    "es": "Estaba a punto de llamar a una herramienta ({}): llámala si aún hace falta y no escribas nada sobre ello.",
}
_SPANISH = frozenset(
    [
        "el",
        "la",
        "los",
        "las",
        "de",
        "del",
        "que",
        "y",
        "en",
        "un",
        "una",
        "por",
        "con",
        "para",
        "es",
        "no",
        "se",
        "lo",
        "como",
        "más",
        "pero",
        "su",
        "al",
    ]
)
_ENGLISH = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "in",
        "is",
        "that",
        "it",
        "for",
        "as",
        "with",
        "on",
        "be",
        "this",
        "are",
        "not",
        "or",
        "by",
        "from",
        "an",
    ]
)


def continued(request: Request, delivered: str) -> Request:
    """`request` to a model that takes the beginning of its own answer: `delivered`, without the white space at its end."""
    begun = Message("assistant", (TextPart(delivered.rstrip()),))
    return _bounded(msgspec.structs.replace(request, messages=(*request.messages, begun), continues=True), delivered)


def asked_to_continue(request: Request, delivered: str, calling: Sequence[str] = ()) -> Request:
    """`request` to any model: the conversation as it is, the answer so far, and a word of ours that is kept nowhere.

    `calling` are the tools that it was about to call.
    """
    said = Message("assistant", (TextPart(delivered.rstrip() or delivered),))
    quoted = delivered[-QUOTED:]
    language = _language(delivered)
    words = [_ASK[language]]
    if calling:
        words.append(_CALL[language].format(", ".join(dict.fromkeys(calling))))
    ask = Message("user", (TextPart(f"{' '.join(words)}\n\n<<<{quoted}>>>"),))
    return _bounded(msgspec.structs.replace(request, messages=(*request.messages, said, ask)), delivered)


def _bounded(request: Request, delivered: str) -> Request:
    """`request` with no more output than is left of its own bound."""
    most = request.sampling.max_tokens
    if most is None:
        return request
    left = max(1, most - estimate_tokens(delivered))
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, max_tokens=left))


def _language(text: str) -> str:
    words = text.lower().split()[-300:]
    spanish = sum([word in _SPANISH for word in words])
    english = sum([word in _ENGLISH for word in words])
    return "es" if spanish > english else "en"
