"""How a model is asked to go on with an answer that another attempt began."""

import re
from collections.abc import Sequence

import msgspec

from cauce.domain.message import Message, TextPart
from cauce.domain.request import Prompt, Request
from cauce.domain.tokens import estimate_tokens

QUOTED = 1500
"""Characters of the end of the answer that are quoted."""

_LOOKED_AT = 2000
"""Characters of a text by whose commonest words its language is told."""

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
_SPANISH = re.compile(
    r"\b(?:el|la|los|las|de|del|que|y|en|un|una|por|con|para|es|se|lo|como|más|pero|su|al)\b", re.IGNORECASE
)
_ENGLISH = re.compile(
    r"\b(?:the|of|and|to|in|is|that|it|for|as|with|on|be|this|are|not|or|by|from|an)\b", re.IGNORECASE
)


def continued(request: Request, delivered: str) -> Request:
    """`request` to a model that takes the beginning of its own answer: `delivered`, without the white space at its end. A prompt becomes
    that much longer."""
    if request.prompt is not None:
        text = request.prompt.text + delivered.rstrip()
        messages = (Message("user", (TextPart(text),)),)
        return _bounded(msgspec.structs.replace(request, messages=messages, prompt=Prompt(text)), delivered)
    begun = Message("assistant", (TextPart(delivered.rstrip()),))
    return _bounded(msgspec.structs.replace(request, messages=(*request.messages, begun), continues=True), delivered)


def asked_to_continue(request: Request, delivered: str, calling: Sequence[str] = ()) -> Request:
    """`request` to any model: the conversation as it is, the answer so far, and a word of ours that is kept nowhere.

    `calling` are the tools that it was about to call.
    """
    said = Message("assistant", (TextPart(delivered.rstrip() or delivered),))
    quoted = delivered[-QUOTED:]
    language = _language(request, delivered)
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


def _language(request: Request, delivered: str) -> str:
    """That of the answer; where it does not tell, of what the user said last, then of the system prompt. English, if nothing tells."""
    said = [message.text for message in request.messages if message.role == "user"][-1:]
    told = [message.text for message in request.messages if message.role in ("system", "developer")]
    for text in (delivered, *said, " ".join(told)):
        end = text[-_LOOKED_AT:]
        spanish, english = len(_SPANISH.findall(end)), len(_ENGLISH.findall(end))
        if spanish != english:
            return "es" if spanish > english else "en"
    return "en"
