"""Messages as pages keep them, made into the domain's: a page's one message is several where tools were called in it."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.domain.message import (
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
)
from cauce.domain.signature import Signature
from cauce.wire.signing import unseal
from cauce.wire.ui_messages.parts import OWN, WIRE

_DENIED = "The user did not allow this call."
_FAILED = "The tool failed and said nothing."
_ADDRESSES = ("data:", "http://", "https://")

_encode = msgspec.json.Encoder().encode


class UIMessageBody(msgspec.Struct):
    """One message. `parts` are those of the AI SDK: `text`, `file`, `reasoning`, `tool-…`, `dynamic-tool`; others are not for models."""

    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]]
    id: str = ""


def parse_messages(bodies: Sequence[UIMessageBody]) -> tuple[Message, ...]:
    """Domain messages. Raises `InvalidRequest` naming the field.

    Calls without a result are left out, since no model takes them: those that were broken off, or that the page has yet to answer.
    """
    if not bodies:
        raise InvalidRequest("messages: must hold at least one message", field="messages")
    messages: list[Message] = []
    for index, body in enumerate(bodies):
        path = f"messages[{index}].parts"
        if body.role == "assistant":
            messages.extend(_said(body.parts, path))
            continue
        parts = _asked(body.parts, path)
        if not parts:
            raise InvalidRequest(f"{path}: must hold a text or a file", field=path)
        messages.append(Message(body.role, tuple(parts)))
    return tuple(messages)


def _asked(raw: Sequence[dict[str, Any]], path: str) -> list[Part]:
    """What a person wrote, or the page's author."""
    parts: list[Part] = []
    for place, part in enumerate(raw):
        match part:
            case {"type": "text", "text": str(text)}:
                if text:
                    parts.append(TextPart(text))
            case {"type": "text"}:
                raise InvalidRequest(f"{path}[{place}].text: must be a string", field=f"{path}[{place}].text")
            case {"type": "file"}:
                parts.append(_file(part, f"{path}[{place}]"))
            case {"type": str()}:
                # Data parts and whatever else a page keeps for itself.
                pass
            case _:
                raise InvalidRequest(f"{path}[{place}].type: is required", field=f"{path}[{place}].type")
    return parts


def _file(part: dict[str, Any], path: str) -> Part:
    url, kind, name = part.get("url"), part.get("mediaType"), part.get("filename")
    if not isinstance(url, str) or not url.startswith(_ADDRESSES):
        raise InvalidRequest(
            f"{path}.url: must be a data: URL or an http(s) address: others cannot be read here", field=f"{path}.url"
        )
    media_type = kind if isinstance(kind, str) else ""
    if media_type.partition("/")[0] == "image":
        return ImagePart(url)
    # Pages may send the first half alone.
    whole = "/" in media_type and not media_type.endswith("/*")
    return DocumentPart(url, media_type if whole else None, name if isinstance(name, str) else None)


def _said(raw: Sequence[dict[str, Any]], path: str) -> list[Message]:
    """What a model wrote, step by step: each step's calls are followed by their results."""
    messages: list[Message] = []
    step = _Step()
    for place, part in enumerate(raw):
        match part:
            case {"type": "step-start"}:
                messages.extend(step.messages())
                step = _Step()
            case {"type": "steering-message"}:
                messages.extend(step.messages())
                step = _Step()
                if asked := _asked(_objects(part.get("parts")), f"{path}[{place}].parts"):
                    messages.append(Message("user", tuple(asked)))
            case {"type": str(kind)}:
                step.add(kind, part)
            case _:
                raise InvalidRequest(f"{path}[{place}].type: is required", field=f"{path}[{place}].type")
    messages.extend(step.messages())
    return messages


class _Step:
    """One turn of a model, and what its tools gave."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._results: list[Message] = []

    def messages(self) -> list[Message]:
        """The model's message, if it said anything, and one for each result."""
        return [Message("assistant", tuple(self._parts)), *self._results] if self._parts else []

    def add(self, kind: str, part: dict[str, Any]) -> None:
        """The next part."""
        match kind, part:
            case "text", {"text": str(text)} if text:
                refused = _own(part, "providerMetadata").get("refusal")
                self._parts.append(RefusalPart(text) if refused else TextPart(text))
            case "reasoning", {"text": str(text)}:
                signature = _signature(_own(part, "providerMetadata"))
                if text or signature is not None:
                    self._parts.append(ReasoningPart(text, signature))
            case "dynamic-tool", {"toolCallId": str(call_id), "toolName": str(name)}:
                self._call(call_id, name, part)
            case _, {"toolCallId": str(call_id)} if kind.startswith("tool-"):
                self._call(call_id, kind.removeprefix("tool-"), part)
            case _:
                # Sources, files, data: not for models.
                pass

    def _call(self, call_id: str, name: str, part: dict[str, Any]) -> None:
        found = _result(part)
        if found is None:
            return
        content, failed = found
        given = _input(part)
        if part.get("state") == "output-error" and isinstance(given, str):
            # What the model wrote was no JSON.
            arguments = given
        else:
            arguments = _encode({} if given is None else given).decode()
        signature = _signature(_own(part, "callProviderMetadata"))
        self._parts.append(ToolCallPart(call_id, name, arguments, signature=signature))
        self._results.append(Message("tool", (TextPart(content),), call_id=call_id, failed=failed))


def _result(part: dict[str, Any]) -> tuple[str, bool] | None:
    """What a call gave, and whether it failed; None if it has given nothing, or was never made."""
    match part:
        case {"state": "output-available"}:
            output = part.get("output")
            return (output if isinstance(output, str) else _encode(output).decode()), False
        case {"state": "output-error"} if _input(part) is not None:
            told = part.get("errorText")
            return (told if isinstance(told, str) and told else _FAILED), True
        case {"state": "output-denied"} | {"state": "approval-responded", "approval": {"approved": False}}:
            approval = part.get("approval")
            told = cast(dict[str, Any], approval).get("reason") if isinstance(approval, dict) else None
            return (told if isinstance(told, str) and told else _DENIED), True
        case _:
            return None


def _input(part: dict[str, Any]) -> Any:
    """What a call was made with. Versions 5 and 6 of the SDK put what was wrong with it elsewhere."""
    given = part.get("input")
    return part.get("rawInput") if given is None else given


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects in `value`, if it is a list."""
    found = cast(list[Any], value) if isinstance(value, list) else []
    return [one for one in found if isinstance(one, dict)]


def _own(part: dict[str, Any], name: str) -> dict[str, Any]:
    """What we said of this part in its metadata."""
    metadata = part.get(name)
    own = cast(dict[str, Any], metadata).get(OWN) if isinstance(metadata, dict) else None
    return cast(dict[str, Any], own) if isinstance(own, dict) else {}


def _signature(own: dict[str, Any]) -> Signature | None:
    sealed = own.get("signature")
    return unseal(sealed, WIRE) if isinstance(sealed, str) and sealed else None
