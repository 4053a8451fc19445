"""Making a request fit a window of tokens. Pure: what is weighed here are estimates, and callers allow for that.

What is kept always: what the system and the developer say, the last turn of the user, calls of tools together with their results.
What goes first: the oldest turns, whole. Within the last turn, the oldest calls and their results.
"""

from collections.abc import Sequence

import msgspec

from cauce.domain.document import is_doubtful, longest
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.request import Request
from cauce.domain.tokens import PER_MESSAGE, PER_PAGE, weigh

DOUBT = 0.15
"""How much longer than a window an estimate must be for a request to be refused without asking."""

ANSWER = 1024
"""Tokens left free for an answer that the request does not bound, or a quarter of the window if that is less."""

_MOST_PER_CHARACTER = 2.0
"""No kind of character weighs more than that (`domain.tokens`)."""

_MOST_PER_TOOL = 2000.0
"""More than a description and a schema are, but for very few."""

_CONTEXT = ("system", "developer")


class Fit(msgspec.Struct, frozen=True):
    """`tokens` of a request, by estimate, against the `room` that a `window` has for it, and the `most` it could have."""

    tokens: int
    window: int
    room: int
    most: int

    @property
    def fits(self) -> bool:
        return self.tokens <= self.room

    @property
    def is_hopeless(self) -> bool:
        """Whether it is too long, however wrong the estimate may be."""
        return self.tokens > self.most * (1 + DOUBT)


class Shortened(msgspec.Struct, frozen=True):
    """A request with `dropped` taken out. `weight` is what is left of it."""

    request: Request
    dropped: tuple[Message, ...]
    weight: float


class _Turn(msgspec.Struct):
    """A message of the user and what follows it, up to the next one: blocks that are kept or dropped whole."""

    blocks: list[list[int]]
    calls: dict[str, list[int]] = {}
    """The block that a call of a tool is in: the last one, where several have its id."""


def bound(request: Request) -> float:
    """Tokens that `request` is not above, cheaply: most are far below any window, and need no closer look."""
    characters = 0
    tokens = PER_MESSAGE * len(request.messages) + _MOST_PER_TOOL * len(request.tools)
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                characters += len(part.text)
            else:
                tokens += _bound_of(part)
    if request.response_format is not None:
        tokens += _MOST_PER_TOOL
    if request.prompt is not None:
        tokens += request.prompt.tokens
        characters += len(request.prompt.suffix or "")
    return tokens + characters * _MOST_PER_CHARACTER


def is_measurable(request: Request) -> bool:
    """Whether an estimate of `request` means something: what only one wire knows may be a picture as well as a text, and what long
    documents are is for the upstream to say."""
    return not any([_is_vague(part) for message in request.messages for part in message.parts])


def fit(request: Request, tokens: int, window: int) -> Fit:
    """How `request`, of `tokens`, stands to a window, which its answer has a part in."""
    wanted = request.sampling.max_tokens
    if wanted is None:
        # Nobody has asked for room: the answer may be shorter.
        return Fit(tokens, window, window - min(ANSWER, window // 4), window)
    room = window - min(wanted, window // 2)
    return Fit(tokens, window, room, room)


def shortened(request: Request, most: float) -> Shortened:
    """`request` without its oldest turns, so that what is left weighs no more than `most` if that can be had."""
    weights = [weigh(Request("", (message,))) for message in request.messages]
    weight = weigh(msgspec.structs.replace(request, messages=())) + sum(weights)
    turns = _turns(request.messages)
    droppable = [[index for block in turn.blocks for index in block] for turn in turns[:-1]]
    if turns:
        droppable += turns[-1].blocks[1:-1]
    dropped: set[int] = set()
    for indices in droppable:
        if weight <= most:
            break
        dropped.update(indices)
        weight -= sum([weights[index] for index in indices])
    if not dropped:
        return Shortened(request, (), weight)
    for index in _orphans(request.messages, dropped):
        dropped.add(index)
        weight -= weights[index]
    kept = tuple([message for index, message in enumerate(request.messages) if index not in dropped])
    gone = tuple([message for index, message in enumerate(request.messages) if index in dropped])
    return Shortened(msgspec.structs.replace(request, messages=kept), gone, weight)


def noted(request: Request, note: str) -> Request:
    """`request` with `note` in front of what its first user message says."""
    messages = list(request.messages)
    place = next((index for index, message in enumerate(messages) if message.role not in _CONTEXT), len(messages))
    part = TextPart(note)
    if place < len(messages) and messages[place].role == "user":
        # A message of its own would make two of the user in a row, which some models' templates refuse.
        messages[place] = msgspec.structs.replace(messages[place], parts=(part, *messages[place].parts))
    else:
        messages.insert(place, Message("user", (part,)))
    return msgspec.structs.replace(request, messages=tuple(messages))


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """The conversation without what the system says, cut into turns of the user, and those into blocks.

    A block is messages of the user, or one of the assistant with the results of the tools it called.
    """
    turns: list[_Turn] = []
    before = ""
    for index, message in enumerate(messages):
        role = message.role
        if role in _CONTEXT:
            continue
        if not turns or (role == "user" and before != "user"):
            turns.append(_Turn([block := [index]]))
        elif role == "assistant":
            turns[-1].blocks.append(block := [index])
        else:
            # A result belongs to its call, if that is in the turn.
            answered = turns[-1].calls.get(message.call_id) if role == "tool" and message.call_id is not None else None
            block = turns[-1].blocks[-1] if answered is None else answered
            block.append(index)
        for call in _called(message):
            turns[-1].calls[call] = block
        before = role
    return turns


def _called(message: Message) -> list[str]:
    return [part.call_id for part in message.parts if isinstance(part, ToolCallPart)]


def _orphans(messages: Sequence[Message], dropped: set[int]) -> list[int]:
    """Results that are kept of calls that are not: they came only after the user had spoken again."""
    calls = {call for index in dropped for call in _called(messages[index])}
    return [
        index
        for index, message in enumerate(messages)
        if index not in dropped and message.role == "tool" and message.call_id in calls
    ]


def _is_vague(part: Part) -> bool:
    return isinstance(part, OpaquePart) or (isinstance(part, DocumentPart) and is_doubtful(part.url))


def _bound_of(part: Part) -> float:
    match part:
        case TextPart(text) | ReasoningPart(text) | RefusalPart(text):
            return len(text) * _MOST_PER_CHARACTER
        case ToolCallPart(_, name, arguments):
            return (len(name) + len(arguments)) * _MOST_PER_CHARACTER
        case ImagePart():
            return PER_PAGE
        case DocumentPart(url):
            return PER_PAGE * longest(url)
        case OpaquePart():
            return 0.0
