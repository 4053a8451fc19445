"""What may come from the cache, and what may go into it.

| request | by itself | if the client asks for the cache |
|---|---|---|
| temperature 0, its own or the configured default | yes | yes |
| any other temperature, or none said | no | yes |
| several answers (`n`) | no | yes |
| tools that the provider runs, or that only one wire knows | no | yes |
| images and documents by address: what is there may change | no | yes |
| what it looks up on the web, or a session of its own, by a field of its wire | no | yes |
| `store: false`: its sender wants nothing kept | no | yes |
| vectors of few texts: a question that somebody asks | yes | yes |
| vectors of many: a library that is read in once would push the others out | no | yes |
| `conversation_id`: its answer depends on what is kept here | no | no |
| `Cache-Control: no-store` | no | no |

| answer | kept |
|---|---|
| complete: stop, tool calls, or as long as the request lets it be | yes |
| cut to a length that the request does not name: by a budget, or by the model | no |
| an error, cut off, cancelled | no |
| ended by a content filter, or empty | no |
| of the offline answerer, or out of the cache itself | no |
| broken and begun anew on its way, stitched, or with tools that were run here | no |
| larger than one answer may be | no |
| to a prompt of which something was left out | no |
"""

from collections.abc import Iterable

from cauce.domain.delta import Attempt, Delta, Finish, Opaque, Restart, Status, ToolCall, ToolResult, delta_size
from cauce.domain.message import DocumentPart, ImagePart, Message
from cauce.domain.request import Request
from cauce.domain.tool import OpaqueTool
from cauce.ports.provider import Call

_LIVE = frozenset(
    {"web_search_options", "search_parameters", "plugins", "mcp_servers", "container", "conversation", "session_id"}
)
"""Fields of wires that make an answer depend on something outside of the request."""

_WHOLE = frozenset({"stop", "length", "tool_calls"})
_ON_ITS_WAY = (Attempt, Restart, ToolResult)

FEW = 16
"""Texts whose vectors are looked up by themselves."""


def may_be_cached(call: Call) -> bool:
    """Whether the answer to `call` may come from the cache and go into it. Its temperature has been looked at."""
    request, control = call.request, call.cache
    if not control.store or request.conversation_id is not None or call.begun:
        return False
    if control.wanted:
        return True
    return _by_itself(request) if call.embedding is None else len(call.embedding.inputs) <= FEW


def _by_itself(request: Request) -> bool:
    if request.sampling.n != 1:
        return False
    extra = request.extra
    if extra is not None and (extra.data.get("store") is False or not _LIVE.isdisjoint(extra.data)):
        return False
    for tool in request.tools:
        if type(tool) is OpaqueTool:
            return False
    return not _points_elsewhere(request.messages)


def _points_elsewhere(messages: Iterable[Message]) -> bool:
    for message in messages:
        for part in message.parts:
            kind = type(part)
            if (kind is ImagePart or kind is DocumentPart) and not part.url.startswith("data:"):  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
                return True
    return False


def may_be_kept(call: Call, deltas: list[Delta], attempt: Attempt) -> bool:
    """Whether the answer `deltas` to `call`, given by `attempt`, may be given again."""
    finish = deltas[-1]
    if not isinstance(finish, Finish) or finish.outcome != "completed":
        return False
    if call.course.truncated or attempt.level not in ("primary", "fallback"):
        return False
    if call.embedding is not None:
        return True
    reasons = finish.reasons or (finish.reason,)
    if not _WHOLE.issuperset(reasons) or ("length" in reasons and call.request.sampling.max_tokens is None):
        return False
    if any([isinstance(delta, _ON_ITS_WAY) or _is_stitched(delta) for delta in deltas]):
        return False
    return any([delta_size(delta) > 0 or isinstance(delta, ToolCall | Opaque) for delta in deltas])


def _is_stitched(delta: Delta) -> bool:
    """Whether the answer was gone on with there by a model that was asked to continue."""
    return isinstance(delta, Status) and delta.kind == "seam" and delta.facts.get("quality") == "stitched"
