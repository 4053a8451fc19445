"""Whether the head of an attempt talks to the reader instead of going on with the text: "Sure, here is the rest:". Pure.

Most of what models say there are ordinary words too ("claro", "sure", "sigo recto hasta la plaza"). So a head counts only where it is
written like a new sentence, or announces with a colon; and words of assent or excuse alone only where the text before it stands at the
end of one. What goes on must be the answer itself: "here is the rest of the code:" is text.
"""

import re
from typing import Literal

LONGEST = 80
"""Characters from which on a head that opens like a preamble, and has not become one, is none."""

_ASSENT = (
    r"sure(?: thing)?|certainly|of course|absolutely|okay|ok|all ?right|got it|understood|no problem"
    r"|claro(?: que sí)?|por supuesto|desde luego|de acuerdo|entendido|vale|perfecto|cómo no"
)
_YES = r"yes|great|thanks|thank you|sí|genial|gracias"
"""Assent too, but any text may say it: it counts only with what follows."""

_EXCUSE = (
    r"(?:i(?:'|’)?m |i am )?(?:so |very |really )?sorry|my apologies|apologies|(?:i |we )?apologi[sz]e"
    r"|perd(?:ón|ona|one)|disculp(?:a|e|as|en)|mis disculpas|lo siento(?: mucho)?"
)
_REGRET = r"(?:lamento|siento)"
_LEAD = (
    rf"(?:(?:{_ASSENT}|{_YES})(?!\w)[\W_]++(?:(?:so|then|entonces|pues) )?"
    rf"|(?:{_EXCUSE}|{_REGRET})\b[^\n.,:;!?–—]{{0,40}}+[.,:;!–—][\W_]*+)"
)
"""What may stand before talk about going on."""

_STOP = r"""[\s*_)\]"'”’]*(?:[:…\n]|\.(?=\W))"""
_LINE_END = r"[\s*_]*[:.…)\]*_][^\w\n]*\n"
_THING = r"(?:answer|response|reply|message|text|explanation)"
_COSA = r"(?:respuesta|contestación|mensaje|texto|explicación)"
_OLD_THING = rf"(?:previous|last|earlier) {_THING}(?=\W)"
_OLD_COSA = rf"{_COSA} (?:anterior|previ[oa]|interrumpid[oa])(?=\W)"

_RIGHT = r"(?:just |right |exactly |directly |seamlessly |on |now )*"
_REST = (
    rf"(?:the|my) (?:rest|remainder|continuation|(?:remaining|missing|next|continued) (?:part|{_THING}))"
    rf"(?: of (?:the |my )(?:previous |last )?{_THING})?"
)
_WHERE = (
    rf" {_RIGHT}(?:from (?:the (?:exact )?point )?)?{_RIGHT}where (?:i|we|it|things|(?:the|my) (?:previous |last )?{_THING})"
    r" (?:left|stopped|broke|ended|paused|was|got|had)(?=\W)"
)
_ON = (
    rf"(?:{_WHERE}| {_RIGHT}(?:with |of |from )?(?:(?:the|my) {_OLD_THING}"
    rf"|(?:(?:the|my) {_THING}|{_REST}|here|there|the (?:exact )?(?:point|cut-?off|interruption))(?:{_STOP}|,?{_WHERE})))"
)
_JUSTO = r"(?:justo |exactamente |directamente |ahora |entonces |pues )*"
_RESTO = (
    rf"(?:el resto|la continuación|lo que (?:falta|sigue|viene)|la parte que falta|el texto restante|la parte restante)"
    rf"(?: (?:del|de la|de mi) {_COSA})?"
)
_DONDE = (
    rf" {_JUSTO}(?:(?:(?:des)?de |desde el punto (?:exacto )?(?:en )?)?donde|desde el punto (?:exacto )?en (?:el )?que)"
    r" (?:(?:lo|la|me|se|nos) )*(?:dej[éó]|qued[éó]|cort[éó]|interrump|iba|estaba)"
)
_SIGUE = (
    rf"(?:{_DONDE}| {_JUSTO}(?:con |de )?(?:(?:el|la|mi|del) {_OLD_COSA}|(?:(?:el|la|mi|del) {_COSA}|{_RESTO}"
    rf"|desde (?:aquí|ahí|el punto|el corte|la interrupción)|a partir de (?:aquí|ahí))(?:{_STOP}|,?{_DONDE})))"
)
_I_WILL = (
    r"(?:i(?:'|’)?ll|i will|i(?:'|’)?m going to|let me|let(?:'|’)?s|allow me to) (?:just |now )?"
    r"(?:continue|go on|carry on|resume|pick (?:it )?up)"
)
_VOY_A = r"(?:voy a|d[eé]jame|permíteme) (?:continuar|seguir|retomar)"
_SAID = r"(?:(?:i(?:'|’)?m )?continuing|(?:te )?contin[uú]o|prosigo|continuando)"
_NAMED = (
    r"(?:resuming|picking (?:it )?up|carrying on|continued|continuation"
    r"|(?:te )?(?:sigo|retomo)|siguiendo|prosiguiendo|retomando|continuemos|sigamos|continuación)"
)
"""Alone, with a colon behind, these head what the text goes on with ("Continuación: capítulo dos")."""

_CUT = (
    r"(?:interruption|interrupted|interrupción|interrumpid|cut[ -]?off|disconnect|fallo de red|network"
    r"|corte(?: anterior| de (?:la )?(?:conexión|red|comunicación))?(?=[^\w ]))"
)
_TALK = (
    rf"here(?:(?:'|’)?s| is| are|(?:'|’)?re) {_RIGHT}(?:{_REST}|what (?:follows|comes next|remains)){_STOP}",
    rf"(?:{_I_WILL}(?:{_STOP}|{_ON})|{_VOY_A}(?:{_STOP}|{_SIGUE}))",
    rf"(?:{_SAID}|{_NAMED})(?:{_ON}|{_SIGUE}|{_LINE_END})|{_SAID}[\s*_]*:",
    rf"aqu[ií] (?:está|tienes?|va|sigue|viene|te dejo) {_JUSTO}{_RESTO}{_STOP}",
    rf"aqu[ií] (?:contin[uú]a|sigue|prosigue) (?:el|la|mi) {_COSA}{_STOP}",
    r"as i was saying\b|como (?:te |le )?iba diciendo\b",
    rf"(?:my|the) (?:last |previous )?{_THING} (?:was|got) (?:cut|interrupted)",
    rf"(?:mi|la) (?:última )?{_COSA}(?: anterior)? (?:se (?:cortó|interrumpió)|quedó (?:cortad|interrumpid))",
    rf"(?:{_EXCUSE})\b[^\n.:!?]{{0,30}}?\b{_CUT}|{_REGRET} (?:mucho )?(?:el|la) {_CUT}",
)
"""What nobody writes in the middle of a text that is about something else."""

_CLEAR = re.compile(rf"{_LEAD}{{0,2}}(?:{'|'.join(_TALK)})|{_LEAD}{{1,2}}{_NAMED}{_STOP}", re.IGNORECASE)
_POLITE = re.compile(rf"(?:{_ASSENT}|{_EXCUSE})\s*[,.!:;–—]", re.IGNORECASE)
_OPENS = re.compile(
    rf"{_ASSENT}|(?:{_YES})(?!\w)|{_EXCUSE}|{_REGRET}|here|i(?:'|’)?ll|i will|i(?:'|’)?m|let|allow|continu|resum|picking|carrying"
    r"|as i|my|the (?:last|previous)|aqu[ií]|te |contin[uú]|sigo|prosig|retom|siguiendo|sigamos|voy a|d[eé]jame|permíteme"
    r"|como|mi |la (?:última|respuesta)",
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
    clear = _CLEAR.match(words)
    if not words[0].isupper():
        return "yes" if clear and clear[0].endswith(":") else "no"
    if clear or (_POLITE.match(words) and _stands_at_an_end(delivered[-100:])):
        return "yes"
    return undecided if _OPENS.match(words) else "no"


def _stands_at_an_end(text: str) -> bool:
    """Whether `text` stops where a sentence or a line does."""
    return _SENTENCE_OVER.search(text) is not None and _ITEM.search(text) is None
