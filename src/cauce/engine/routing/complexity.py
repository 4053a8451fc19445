"""How demanding a request looks, from 0 to 1. A guess from the outside: nothing here understands it.

| what is looked at, in the last message of the user | adds at most |
|---|---|
| code: a fence, or three lines that look like it | 0.3 |
| length: 1,000 tokens and more count fully | 0.3 |
| questions and steps beyond the first, 0.1 each | 0.2 |
| turns of the user before it, 0.05 each | 0.2 |
"""

import re

from cauce.domain.request import Request
from cauce.domain.tokens import weigh_text

CODE = 0.3
LENGTH = 0.3
QUESTIONS = 0.2
TURNS = 0.2

_FULL_LENGTH = 1000
_PER_QUESTION = 0.1
_PER_TURN = 0.05
_LINES_OF_CODE = 3

_LIKE_CODE = re.compile(r"[;{}][ \t]*$|^[ \t]*(?:def|class|import|from|function|return|public|SELECT)\b", re.M)
_ASKED = re.compile(r"\?(?=\s|$)|^[ \t]*(?:[-*]|\d{1,2}[.)])[ \t]", re.M)


def complexity(request: Request) -> float:
    """The score of `request`. Costs time in proportion to the length of the user's last message."""
    asked = [message for message in request.messages if message.role == "user"]
    if not asked:
        return 0.0
    text = asked[-1].text
    code = "```" in text or len(_LIKE_CODE.findall(text)) >= _LINES_OF_CODE
    questions = max(0, len(_ASKED.findall(text)) - 1)
    score = (
        CODE * code
        + LENGTH * min(1.0, weigh_text(text) / _FULL_LENGTH)
        + min(QUESTIONS, _PER_QUESTION * questions)
        + min(TURNS, _PER_TURN * (len(asked) - 1))
    )
    return round(score, 3)
