"""Tool calls inside messages, to and from the domain: of functions, of custom tools, and in the old form with one function."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.extra import Extra
from cauce.domain.message import ToolCallPart
from cauce.domain.signature import Signature
from cauce.wire.fields import rest
from cauce.wire.openai_chat import custom
from cauce.wire.openai_chat.extras import WIRE, fields, member, own
from cauce.wire.signing import seal, unseal

GOOGLE = "gemini"
"""The wire whose upstreams understand a thought signature, wherever it travels."""


class FunctionCallBody(msgspec.Struct):
    name: str
    arguments: str = ""


class CustomCallBody(msgspec.Struct):
    name: str
    input: str = ""


class ToolCallBody(msgspec.Struct):
    id: str
    function: FunctionCallBody | None = None
    custom: CustomCallBody | None = None
    type: str = "function"


_CALL_FIELDS = frozenset({*ToolCallBody.__struct_fields__, "index"})
_FUNCTION_FIELDS = frozenset(FunctionCallBody.__struct_fields__)


def parse_calls(bodies: list[ToolCallBody], raw: list[dict[str, Any]], path: str) -> list[ToolCallPart]:
    """Domain calls of checked `bodies`; `raw` is the JSON they were read from. Raises `InvalidRequest` naming the field."""
    return [_call(body, raw[place], f"{path}[{place}]") for place, body in enumerate(bodies)]


def _call(body: ToolCallBody, raw: dict[str, Any], path: str) -> ToolCallPart:
    unknown = rest(raw, _CALL_FIELDS)
    signature = take_signature(unknown)
    if body.function is not None:
        if function := rest(raw["function"], _FUNCTION_FIELDS):
            unknown["function"] = function
        extra = Extra(WIRE, unknown) if unknown else None
        return ToolCallPart(body.id, body.function.name, body.function.arguments, extra, signature)
    if body.custom is not None:
        return custom.parse_call(body.id, body.custom.name, body.custom.input, unknown)
    raise InvalidRequest(f"{path}.function: is required", field=f"{path}.function")


def legacy_call(body: FunctionCallBody, index: int) -> ToolCallPart:
    """The call of an assistant's message number `index` that is told in the old form, without an id."""
    return ToolCallPart(f"call_{index}", body.name, body.arguments)


def render_call(call: ToolCallPart) -> dict[str, Any]:
    """`call` as the wire has it."""
    kept = {**fields(call.extra), **member(own(call.extra), "call")}
    if custom.is_custom(call.extra):
        return {**custom.render_call(call.call_id, call.name, call.arguments), **kept}
    function = {"name": call.name, "arguments": call.arguments, **member(kept, "function")}
    body = {"id": call.call_id, "type": "function", **kept, "function": function}
    if call.signature is not None and call.signature.wire == GOOGLE:
        lay_signature(body, call.signature)
    return body


def take_signature(unknown: dict[str, Any]) -> Signature | None:
    """Take the thought signature out of a call's unknown fields (`extra_content.google.thought_signature`).

    Source: Google, "OpenAI compatibility", thought signatures.
    """
    content = member(unknown, "extra_content")
    google = member(content, "google")
    found = google.get("thought_signature")
    if not isinstance(found, str) or not found:
        return None
    left = {
        **{name: value for name, value in content.items() if name != "google"},
        **({"google": inner} if (inner := {k: v for k, v in google.items() if k != "thought_signature"}) else {}),
    }
    del unknown["extra_content"]
    if left:
        unknown["extra_content"] = left
    return unseal(found, GOOGLE)


def lay_signature(body: dict[str, Any], signature: Signature) -> None:
    """Put `signature` where clients and upstreams of this wire look for it: Google's bare, others sealed."""
    content = member(body, "extra_content")
    google = {**member(content, "google"), "thought_signature": seal(signature, GOOGLE)}
    body["extra_content"] = {**content, "google": google}


def shown_calls(calls: Sequence[ToolCallPart], customs: frozenset[str]) -> list[dict[str, Any]]:
    """The calls of an answer for a client whose custom tools are `customs`."""
    shown: list[dict[str, Any]] = []
    for call in calls:
        if custom.is_custom(call.extra) or call.name in customs:
            body = custom.render_call(call.call_id, call.name, call.arguments)
        else:
            function = {"name": call.name, "arguments": call.arguments}
            body = {"id": call.call_id, "type": "function", "function": function}
        lay_call(body, own(call.extra))
        if call.signature is not None:
            lay_signature(body, call.signature)
        shown.append(body)
    return shown


def lay_call(call: dict[str, Any], kept: dict[str, Any]) -> None:
    """Put the unknown fields of a call in an answer back where they came from."""
    call.update(member(kept, "call"))
    if "function" in call:
        call["function"].update(member(kept, "function"))
