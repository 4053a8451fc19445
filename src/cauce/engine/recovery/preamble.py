"""Whether the head of an attempt talks to the reader instead of going on with the text: "Sure, here is the rest:". Pure.

Most of what models say there are ordinary words too ("claro", "sure", "sigo recto hasta la plaza"). So a head counts only where it is
written like a new sentence; and words of assent or excuse alone only where the text before it stands at the end of one.
"""

import re
from typing import Literal

LONGEST = 80
"""Characters from which on a head that opens like a preamble, and has not become one, is none."""

_ASSENT = (
    r"sure(?: thing)?|certainly|of course|absolutely|okay|ok|all ?right|got it|understood|no problem"
    r"|claro(?: que sí)?|por supuesto|desde luego|de acuerdo|entendido|vale|perfecto|cómo no"
)
_EXCUSE = (
    r"(?:i(?:'|’)?m |i am )?(?:so |very |really )?sorry|my apologies|apologies|(?:i |we )?apologi[sz]e"
    r"|perd(?:ón|ona|one)|disculp(?:a|e|as|en)|mis disculpas|lo siento(?: mucho)?|lamento|siento"
)
_STOP = r"\W*(?:[:.…\n]|[)\]*_]+\s*\n)"
_RIGHT = r"(?:just |right |exactly |directly |seamlessly |on |now )*"
_JUSTO = r"(?:justo |exactamente |directamente |ahora |entonces |pues )*"
_FROM_WHERE = (
    rf"(?:{_STOP}| {_RIGHT}(?:from )?(?:where|here\b|there\b|(?:with )?the (?:point|answer|response|text|rest|interruption)"
    r"|(?:with )?my (?:answer|response|previous|last)))"
)
_DESDE_DONDE = (
    rf"(?:{_STOP}| {_JUSTO}(?:(?:des)?de donde|donde|desde (?:el punto|ahí|aquí)|a partir de(?:l punto| donde| ahí| aquí)"
    r"|(?:con )?(?:la|mi|el) (?:respuesta|texto|explicación) (?:anterior|donde|desde|interrumpid|que)))"
)
_GOING_ON = (
    rf"here(?:(?:'|’)?s| is| are|(?:'|’)?re) {_RIGHT}(?:the |my |what |how )*"
    r"(?:rest\b|remain|continu|follows|comes next|next part|missing)",
    r"(?:i(?:'|’)?ll|i will|i(?:'|’)?m going to|let me|let(?:'|’)?s|allow me to) (?:just |now )?"
    rf"(?:continue|go on|carry on|resume|pick (?:it )?up){_FROM_WHERE}",
    rf"(?:continuing|resuming|picking (?:it )?up|carrying on|continued|continuation){_FROM_WHERE}",
    r"as i was saying\b",
    r"(?:my (?:last |previous )?|the (?:last |previous ))(?:answer|response|message) (?:was|got) (?:cut|interrupted)",
    rf"aqu[ií] (?:está|tienes?|va|sigue|te dejo) {_JUSTO}"
    r"(?:el resto\b|la continuación|lo que (?:falta|sigue|viene)|la parte que falta)",
    r"(?:te )?(?:contin[uú]o|sigo|prosigo|retomo|continuando|siguiendo|prosiguiendo|retomando|continuemos|sigamos|continuación)"
    rf"{_DESDE_DONDE}",
    rf"(?:voy a|d[eé]jame|permíteme) (?:continuar|seguir|retomar){_DESDE_DONDE}",
    r"como (?:te |le )?iba diciendo\b",
    r"(?:mi (?:última )?|la (?:última )?)(?:respuesta|mensaje)(?: anterior)? (?:se (?:cortó|interrumpió)|quedó (?:cortad|interrumpid))",
)
"""What nobody writes in the middle of a text that is about something else."""

_CUT = r"interruption|interrupted|interrupción|interrumpid|cut[ -]?off|disconnect|corte\b(?! de)|fallo de red|network"
_CLEAR = re.compile(
    rf"(?:(?:{_ASSENT})[\s,.!;:–—-]+(?:so |then |entonces |pues )?)?"
    rf"(?:{'|'.join(_GOING_ON)}|(?:{_EXCUSE})\b[^\n.:!?]{{0,30}}?\b(?:{_CUT}))",
    re.IGNORECASE,
)
_POLITE = re.compile(rf"(?:{_ASSENT}|{_EXCUSE})\s*[,.!:;–—]", re.IGNORECASE)
_OPENS = re.compile(
    rf"{_ASSENT}|{_EXCUSE}|here|i(?:'|’)?ll|i will|i(?:'|’)?m|let|allow|continu|resum|picking|carrying|as i|my|the (?:last|previous)|aqu[ií]"
    r"|te |sigo|prosig|retom|siguiendo|sigamos|voy a|d[eé]jame|permíteme|como|mi |la (?:última|respuesta)",
    re.IGNORECASE,
)
_SENTENCE_OVER = re.compile(r"(?:[.!?…。][\"'”’»)\]*_`]*\s*|\n\s*)\Z")
_ITEM = re.compile(r"(?:\A|\n)\s*\d{1,3}[.)]\s*\Z")
"""The number of an item of a list is no end of a sentence."""
_BEFORE_WORDS = re.compile(r"[\W_]*")

Talk = Literal["no", "perhaps", "yes"]


def talks(delivered: str, head: str) -> Talk:
    """Whether `head`, which was to go on from `delivered`, is a preamble; `perhaps`: more of it must be seen to tell."""
    words = _BEFORE_WORDS.sub("", head, count=1)
    undecided: Talk = "perhaps" if len(head) < LONGEST else "no"
    if not words:
        return undecided
    if not words[0].isupper():
        return "no"
    if _CLEAR.match(words) or (_POLITE.match(words) and _stands_at_an_end(delivered[-100:])):
        return "yes"
    return undecided if _OPENS.match(words) else "no"


def _stands_at_an_end(text: str) -> bool:
    """Whether `text` stops where a sentence or a line does."""
    return _SENTENCE_OVER.search(text) is not None and _ITEM.search(text) is None
