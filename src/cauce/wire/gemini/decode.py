"""Answers of this wire read into deltas: events of a stream, one plain body, or the list of a stream asked for without events.

There is no end marker: an answer is complete once every candidate seen has a finish reason and the bytes end cleanly. The
last usage counts, whatever the ones before it said. A turn with function calls says STOP: the parts tell.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from cauce.domain.delta import Citation, Delta, Finish, FinishReason, Opaque, Reasoning, Text, TokenLogprob
from cauce.domain.extra import Extra
from cauce.domain.request import Request
from cauce.domain.signature import Signature
from cauce.domain.usage import Usage
from cauce.wire.decoding import Decoding
from cauce.wire.gemini.calls import Calls
from cauce.wire.gemini.errors import parse_error, to_failure
from cauce.wire.gemini.names import WIRE, items, member, word
from cauce.wire.gemini.usage import parse_usage
from cauce.wire.making import CallIds
from cauce.wire.sse import Event, SSEDecoder

FILTERED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "LANGUAGE",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
        "JAILBREAK",
    }
)
_BROKEN = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "OTHER",
    }
)
"""Reasons that mean the model did not do what was asked, and asking again may help."""

_CALLED = frozenset({"UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"})
"""Those that come with calls the client can judge for itself."""

_ANSWER = frozenset(
    {"candidates", "usageMetadata", "modelVersion", "responseId", "promptFeedback", "continuationToken"}
)
_CANDIDATE = frozenset({"content", "index", "finishReason", "continuationToken"})
_PLAIN_PART = frozenset({"text"})
_NO_PARTS: list[dict[str, Any]] = []

_RAW = Extra(WIRE, {})
"""On sources: what this wire says of them stands in the finish, raw."""


class _Candidate:
    __slots__ = ("about", "calls", "cited", "place", "reason")

    def __init__(self, index: int, ids: CallIds) -> None:
        self.place = index
        self.calls = Calls(index, ids)
        self.reason: str | None = None
        self.about: dict[str, Any] = {}
        self.cited = 0


class GeminiDecoder(Decoding):
    """State of one answer being read; see `Decoding`."""

    _strays = True

    def __init__(
        self, provider: str, estimate: Callable[[Request], int] | None = None, request: Request | None = None
    ) -> None:
        super().__init__(provider, estimate, request)
        self._ids = CallIds(request)
        self._candidates: dict[int, _Candidate] = {}
        self._usage: dict[str, Any] = {}
        self._spent: list[Usage] = []
        """What the requests before this one used, where an answer took several."""
        self._about: dict[str, Any] = {}
        self._feedback: dict[str, Any] = {}
        self._characters = 0
        self.continuation: str | None = None
        """What to send along to have an answer go on that says it is not over."""

    def _events(self, events: Sequence[Event], deltas: list[Delta]) -> None:
        for event in events:
            if self._failure is None:
                self._answer(self._value(event.data), deltas)

    def finish(self) -> list[Delta]:
        """Deltas that remain at the clean end of the bytes, ending with `Finish`. Raises `ProviderFailure` when it was cut.

        No `Finish` while the answer is to be continued: then `continuation` is set.
        """
        deltas: list[Delta] = []
        for event in self._sse.finish():
            if self._failure is None:
                self._answer(self._value(event.data), deltas)
        if self._failure is not None:
            raise self._failure
        return self._end(deltas)

    def completion(self, body: bytes) -> list[Delta]:
        """Deltas of a plain answer or of the list of a stream's, ending with `Finish`. Raises `ProviderFailure`."""
        deltas: list[Delta] = []
        value = self._value(body)
        for answer in cast(list[Any], value) if isinstance(value, list) else [value]:
            self._answer(answer, deltas)
        return self._end(deltas)

    @property
    def done(self) -> bool:
        """Whether an error came: nothing after it belongs to this answer. There is no end marker."""
        return self._failure is not None

    def resume(self) -> None:
        """Read on: the bytes of the request that has this answer go on come next."""
        self._sse = SSEDecoder(strays=True)
        self.continuation = None
        if (usage := parse_usage(self._usage)) is not None:
            self._spent.append(usage)
        self._usage = {}
        for candidate in self._candidates.values():
            candidate.reason = None

    def _answer(self, value: Any, deltas: list[Delta]) -> None:
        if type(value) is not dict:
            if (error := parse_error(value)) is not None:
                raise to_failure(error, provider=self._provider)
            raise self._broken("sent JSON that is not an object")
        answer = cast(dict[str, Any], value)
        if "error" in answer and (error := parse_error(answer)) is not None:
            raise to_failure(error, provider=self._provider)
        usage = answer.get("usageMetadata")
        if isinstance(usage, dict):
            self._usage = cast(dict[str, Any], usage)
        self._goes_on(answer)
        if not answer.keys() <= _ANSWER:
            self._about.update({name: item for name, item in answer.items() if name not in _ANSWER})
        if feedback := member(answer, "promptFeedback"):
            self._feedback = feedback
        candidates = answer.get("candidates")
        if candidates is None:
            return
        if type(candidates) is not list:
            raise self._broken("sent candidates of an unknown shape")
        for raw in cast(list[Any], candidates):
            if type(raw) is not dict:
                raise self._broken("sent a candidate of an unknown shape")
            self._candidate(cast(dict[str, Any], raw), deltas)

    def _candidate(self, raw: dict[str, Any], deltas: list[Delta]) -> None:
        index = raw.get("index")
        place = index if type(index) is int else 0
        candidate = self._candidates.get(place)
        if candidate is None:
            candidate = self._candidates[place] = _Candidate(place, self._ids)
        for number, part in enumerate(self._parts(raw)):
            text = part.get("text")
            if type(text) is str and part.keys() == _PLAIN_PART:
                # The part most streams consist of. The first of an answer goes on with the text before it, others begin anew.
                if text:
                    self._characters += len(text)
                    deltas.append(Text(text, place, begins=number > 0))
            else:
                self._part(part, candidate, deltas, begins=number > 0)
        if not raw.keys() <= _CANDIDATE:
            self._beside(raw, place, candidate, deltas)
        self._goes_on(raw)
        reason = raw.get("finishReason")
        if reason is not None:
            candidate.reason = word(reason) or "STOP"
            self._characters += candidate.calls.close(deltas)

    def _parts(self, raw: dict[str, Any]) -> list[dict[str, Any]]:
        """The parts of a candidate. One that cannot be read must not be missing from an answer that looks whole."""
        content = raw.get("content")
        if content is None:
            return _NO_PARTS
        parts = cast(dict[str, Any], content).get("parts") if type(content) is dict else content
        if parts is None:
            return _NO_PARTS
        if type(parts) is not list or any([type(part) is not dict for part in cast(list[Any], parts)]):
            raise self._broken("sent content of an unknown shape")
        return cast(list[dict[str, Any]], parts)

    def _goes_on(self, raw: dict[str, Any]) -> None:
        """Keep the newest token. Google's SDK looks for it in the candidate; tokens on the way are checkpoints."""
        if "continuationToken" in raw:
            self.continuation = word(raw["continuationToken"]) or self.continuation

    def _part(self, part: dict[str, Any], candidate: _Candidate, deltas: list[Delta], *, begins: bool) -> None:
        place = candidate.place
        if "functionCall" in part:
            if type(part["functionCall"]) is not dict:
                raise self._broken("sent a call of an unknown shape")
            self._characters += candidate.calls.add(part, deltas)
            return
        text, signed = part.get("text"), part.get("thoughtSignature")
        if type(text) is not str:
            if text is not None:
                raise self._broken("sent a text that is no text")
            if part.keys() - {"thoughtSignature"}:
                deltas.append(Opaque(WIRE, part, place))
            return
        self._characters += len(text)
        signature = Signature(WIRE, signed) if isinstance(signed, str) and signed else None
        unknown = {name: value for name, value in part.items() if name not in ("text", "thought", "thoughtSignature")}
        if part.get("thought") is True:
            deltas.append(Reasoning(text, signature, place, Extra(WIRE, unknown) if unknown else None, begins))
            return
        if signature is not None:
            unknown["thoughtSignature"] = signature.data
        deltas.append(Text(text, place, Extra(WIRE, unknown) if unknown else None, begins))

    def _beside(self, raw: dict[str, Any], place: int, candidate: _Candidate, deltas: list[Delta]) -> None:
        """What stands beside the content: the last word on each counts. Sources and log probabilities are deltas too."""
        candidate.about.update({name: value for name, value in raw.items() if name not in _CANDIDATE})
        if probabilities := _logprobs(member(raw, "logprobsResult")):
            deltas.append(Text("", place, logprobs=probabilities))
        cited = _citations(raw, place)
        deltas.extend(cited[candidate.cited :])
        candidate.cited = max(candidate.cited, len(cited))

    def _end(self, deltas: list[Delta]) -> list[Delta]:
        blocked = word(self._feedback.get("blockReason"))
        if not self._candidates and not self._feedback:
            raise self._broken("the answer has no candidates", shape=False)
        if any([candidate.reason is None for candidate in self._candidates.values()]):
            raise self._broken("the stream ended without a finish reason: it was cut off", shape=False)
        if self._paused():
            if self.continuation is None:
                raise self._broken("says that its answer goes on, and not where")
            return deltas
        self.continuation = None
        for candidate in self._candidates.values():
            if candidate.reason in _BROKEN and not (candidate.calls and candidate.reason in _CALLED):
                about = word(candidate.about.get("finishMessage")) or "no message"
                raise self._broken(f"ended its answer with {candidate.reason}: {about}")
        reasons: list[FinishReason] = [
            _reason(candidate) for _, candidate in sorted(self._candidates.items(), key=lambda item: item[0])
        ]
        if not reasons:
            reasons = ["content_filter"] if blocked else ["stop"]
        finish = Finish(reasons[0], self._known(), tuple(reasons) if len(reasons) > 1 else (), extra=self._extra())
        deltas.append(finish)
        return deltas

    def _paused(self) -> bool:
        return any([candidate.reason == "CONTINUATION" for candidate in self._candidates.values()])

    def _extra(self) -> Extra | None:
        data: dict[str, Any] = {}
        candidates = {
            str(index): {"finishReason": candidate.reason, **candidate.about}
            for index, candidate in self._candidates.items()
        }
        if candidates:
            data["candidates"] = candidates
        about = dict(self._about)
        if self._feedback:
            about["promptFeedback"] = self._feedback
        if self._usage and not any([name.endswith("TokenCount") for name in self._usage]):
            about["usageMetadata"] = self._usage
        if about:
            data["answer"] = about
        return Extra(WIRE, data) if data else None

    def so_far(self) -> Usage:
        """What the answer has used by now, as far as can be told: each of its pieces reports."""
        return self._used_so_far(self._known(), self._characters)

    def _known(self) -> Usage:
        told = _summed([*self._spent, parse_usage(self._usage) or self._estimated(self._characters)])
        return self._used(told, self._characters)


def _summed(usages: list[Usage]) -> Usage:
    """The usage of all requests an answer took."""
    if len(usages) == 1:
        return usages[0]
    return Usage(
        sum([usage.input_tokens for usage in usages]),
        sum([usage.output_tokens for usage in usages]),
        sum([usage.cached_tokens for usage in usages]),
        reasoning_tokens=sum([usage.reasoning_tokens for usage in usages]),
        estimated=any([usage.estimated for usage in usages]),
    )


def _reason(candidate: _Candidate) -> FinishReason:
    match candidate.reason:
        case "MAX_TOKENS":
            return "length"
        case str(reason) if reason in FILTERED:
            return "content_filter"
        case _:
            return "tool_calls" if candidate.calls else "stop"


def _logprobs(result: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    tops = items(result.get("topCandidates"))
    chosen: list[TokenLogprob] = []
    for place, one in enumerate(items(result.get("chosenCandidates"))):
        above = items(tops[place].get("candidates")) if place < len(tops) else []
        chosen.append(
            TokenLogprob(
                word(one.get("token")),
                _number(one),
                top=tuple([TokenLogprob(word(other.get("token")), _number(other)) for other in above]),
            )
        )
    return tuple(chosen)


def _number(one: dict[str, Any]) -> float:
    value = one.get("logProbability")
    try:
        return float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        # An integer may be larger than any float.
        return 0.0


def _citations(raw: dict[str, Any], place: int) -> list[Citation]:
    """The sources that grounding and citation metadata name."""
    cited = [_cited(chunk, place) for chunk in items(member(raw, "groundingMetadata").get("groundingChunks"))]
    metadata = member(raw, "citationMetadata")
    for source in items(metadata.get("citationSources") or metadata.get("citations")):
        url, title = word(source.get("uri")) or None, word(source.get("title")) or None
        cited.append(Citation(url, title, choice=place, extra=_RAW))
    return cited


def _cited(chunk: dict[str, Any], place: int) -> Citation:
    source = member(chunk, "web") or member(chunk, "retrievedContext") or member(chunk, "maps")
    # Where a segment begins and ends is told in bytes of a part, which no other wire counts: that stays in the raw metadata.
    return Citation(word(source.get("uri")) or None, word(source.get("title")) or None, choice=place, extra=_RAW)
