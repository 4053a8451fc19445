"""What a route's rules say of one request: which side, or which candidate, comes first."""

from functools import cached_property

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import DocumentPart, ImagePart
from cauce.domain.request import Request
from cauce.domain.tokens import estimate_input_tokens
from cauce.engine.routing.complexity import complexity
from cauce.engine.routing.decision import Fired
from cauce.engine.routing.route import COMPLEX, LONG, Route

PRIVACY = "privacy"
"""The key of `metadata` that keeps a request on this machine."""

_PRIVATE = "local"
_OPEN = ("any", "")


class Traits:
    """What rules look at in a request, found out when one does. `tokens`, if given, stands for the estimated length."""

    def __init__(self, request: Request, tokens: int | None = None) -> None:
        self._request = request
        self._tokens = tokens

    @cached_property
    def tokens(self) -> int:
        """Its length, roughly."""
        return estimate_input_tokens(self._request) if self._tokens is None else self._tokens

    @cached_property
    def complexity(self) -> float:
        return complexity(self._request)

    @cached_property
    def task(self) -> str:
        """What it is for, in the client's words; empty if it does not say."""
        told = self._request.task or (self._request.metadata or {}).get("task")
        return told if isinstance(told, str) else ""

    @property
    def answer(self) -> int | None:
        """Most tokens of the answer, where the request bounds it."""
        return self._request.sampling.max_tokens


def preference(route: Route, traits: Traits) -> Fired | None:
    """The first rule of `route` that says something of `traits`."""
    hybrid = route.order == "hybrid"
    if route.tasks and (first := route.tasks.get(traits.task)) is not None:
        return Fired("task", first, traits.task)
    long = LONG if route.long is None and hybrid else route.long
    if long is not None and traits.tokens >= long:
        return Fired("long", "cloud", float(traits.tokens), float(long))
    complex = COMPLEX if route.complex is None and hybrid else route.complex
    if complex is not None and traits.complexity >= complex:
        return Fired("complex", "cloud", traits.complexity, complex)
    if route.short is not None and traits.tokens <= route.short:
        return Fired("short", "local", float(traits.tokens), float(route.short))
    prefer = route.prefer or ("local" if hybrid else None)
    return Fired("prefer", prefer) if prefer is not None else None


def check_stays(request: Request) -> None:
    """Raise `InvalidRequest` if `request`, which is private, points elsewhere: who has what is there would be asked for it."""
    for index, message in enumerate(request.messages):
        for part in message.parts:
            if isinstance(part, ImagePart | DocumentPart) and part.url[:5].lower() != "data:":
                raise InvalidRequest(
                    "privacy: this request stays on this machine, so nothing is fetched from an address: send what is there as a "
                    "data: URL",
                    field=f"messages[{index}].content",
                )


def is_private(request: Request) -> bool:
    """Whether `request` itself must stay on this machine. Raises `InvalidRequest` for a wish that nobody understands."""
    told = (request.privacy, None if request.metadata is None else request.metadata.get(PRIVACY))
    # Each of them is looked at: what one asks for is not undone by the other.
    return any([_is_local(one) for one in told if one is not None])


def _is_local(told: object) -> bool:
    wish = told.strip().lower() if isinstance(told, str) else None
    if wish == _PRIVATE:
        return True
    if wish in _OPEN:
        return False
    # A mistyped wish must not end up elsewhere.
    raise InvalidRequest('privacy: is "local" (nothing leaves this machine) or "any"', field="metadata.privacy")
