"""A request in its standard form, of the chat or the completions wire, made into what a server of a dialect takes. Data decides; no vendor is named here."""

import hashlib
import re
import string
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, cast

from cauce.domain.errors import Unsupported
from cauce.providers.openai_compatible.dialect import Dialect
from cauce.providers.schemas import fit_chat
from cauce.wire.dropping import dropped

_DIGITS = string.ascii_letters + string.digits
_ID_LENGTH = 9
_SCALE = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGETS = ((4096, "low"), (16_384, "medium"))
"""Budgets of thinking below so many tokens, as efforts; from the last on it is `high`."""

_IMAGE_NOTE = "Images from the tools' answers above:"

_BARE = frozenset({"role", "content", "name"})

Message = dict[str, Any]


def adapt(body: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """`body`, a request in its standard form, as a server of `dialect` takes it. Changes `body`. Raises `Unsupported`."""
    _refuse(body, dialect)
    if dialect.schema is not None:
        fit_chat(body, dialect.schema)
    _adapt_reasoning(body, dialect)
    if "tools" not in body:
        # Beside no tools at all, servers refuse even the choice of none.
        body.pop("parallel_tool_calls", None)
        if body.get("tool_choice") in ("auto", "none"):
            del body["tool_choice"]
    if "messages" in body:
        _adapt_messages(body, dialect)
    if not dialect.stream_usage:
        body.pop("stream_options", None)
    for field in (*dialect.drops, *_refused_by(body["model"], dialect)):
        if body.pop(field, None) is not None:
            dropped(f"openai_chat ({dialect.name})", field)
    for field, name in dialect.renames:
        # The bound on output has one name everywhere where prompts are taken.
        if field in body and (field != "max_tokens" or "messages" in body):
            body[name] = body.pop(field)
    return body


def begin_answer(body: dict[str, Any], dialect: Dialect) -> None:
    """Say in `body` that its last message is the beginning of the answer, where a server of `dialect` must be told."""
    match dialect.prefill:
        case "prefix":
            body["messages"][-1]["prefix"] = True
        case "continue_final_message":
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
        case None:
            pass


def _refuse(body: dict[str, Any], dialect: Dialect) -> None:
    if body.get("n", 1) != 1 and not dialect.several_choices:
        raise Unsupported("this model's server gives one answer per request (n)", field="n")
    schema = cast(dict[str, Any], body.get("response_format") or {})
    if schema.get("type") == "json_schema" and not dialect.json_schema:
        raise Unsupported(
            "this model's server takes no JSON schema (response_format): ask for json_object and say in the prompt what "
            "it must hold",
            field="response_format",
        )


def _refused_by(model: str, dialect: Dialect) -> tuple[str, ...]:
    for pattern, fields in dialect.model_drops:
        if fnmatchcase(model, pattern):
            return fields
    return ()


def _adapt_reasoning(body: dict[str, Any], dialect: Dialect) -> None:
    """How much to think, in the server's words."""
    if "reasoning_effort" not in body and "reasoning" not in body:
        return
    asked: dict[str, Any] = body.pop("reasoning", {})
    effort = body.pop("reasoning_effort", None) or asked.get("effort")
    if not asked and effort is None:
        return
    if dialect.reasoning_option == "object":
        told = {**asked, **({"effort": _nearest(effort, dialect)} if effort else {})}
        if "max_tokens" in told:
            # One or the other, not both.
            told.pop("effort", None)
        body["reasoning"] = told
        return
    if effort is None:
        effort = _effort_of(asked)
    if dialect.reasoning_option == "thinking" and effort is not None:
        body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
        effort = None if effort == "none" else effort
    if effort is not None:
        body["reasoning_effort"] = _nearest(effort, dialect)


def _effort_of(asked: dict[str, Any]) -> str | None:
    """An effort for a budget of tokens, or for a switch."""
    if asked.get("enabled") is False:
        return "none"
    budget = asked.get("max_tokens")
    if not isinstance(budget, int):
        return "medium" if asked.get("enabled") else None
    return next((effort for bound, effort in _BUDGETS if budget < bound), "high")


def _nearest(effort: str, dialect: Dialect) -> str:
    if not dialect.efforts or effort in dialect.efforts or effort not in _SCALE:
        return effort
    place = _SCALE.index(effort)
    if not place:
        # Not to think at all cannot become to think a little where there is another choice.
        return dialect.efforts[0]
    known = [word for word in dialect.efforts if word in _SCALE and word != "none"]
    return min(known, key=lambda word: (abs(_SCALE.index(word) - place), _SCALE.index(word)))


def _adapt_messages(body: dict[str, Any], dialect: Dialect) -> None:
    messages: list[Message] = body["messages"]
    for message in messages:
        if len(message) != 2 or type(message.get("content")) is not str or message["role"] == "developer":
            break
    else:
        # Who speaks, and a text: every server takes that.
        return
    if not dialect.tool_images and any([message["role"] == "tool" for message in messages]):
        messages = body["messages"] = _images_after_tools(messages)
    ids: dict[str, str] = {}
    for message in messages:
        for adapted in _STEPS:
            adapted(message, dialect)
        if dialect.call_ids is not None:
            _rename_calls(message, re.compile(dialect.call_ids), ids)
    # What an assistant only thought is nothing where thoughts do not go back, and nothing is refused.
    body["messages"] = [message for message in messages if not _says_nothing(message)]


def _says_nothing(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("content") is None and message.keys() <= _BARE


def _role(message: Message, dialect: Dialect) -> None:
    if message["role"] == "developer" and not dialect.developer_role:
        message["role"] = "system"


def _refusal(message: Message, dialect: Dialect) -> None:
    if "refusal" in message and not dialect.refusals:
        refusal = message.pop("refusal")
        message["content"] = message.get("content") or refusal


def _reasoning(message: Message, dialect: Dialect) -> None:
    """Reasoning of an earlier turn, where the server takes it back, and nowhere else."""
    text, details = message.pop("reasoning_content", None), message.pop("reasoning_details", None)
    for field in dialect.reasoning:
        match field:
            case "reasoning_details":
                if details:
                    message[field] = details
            case "thinking":
                _think(message, text, details or [])
            case _:
                if text:
                    message[field] = text


def _think(message: Message, text: str | None, details: list[dict[str, Any]]) -> None:
    """Reasoning as the first part of the content."""
    if not text:
        return
    part: dict[str, Any] = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    proof = next((detail["signature"] for detail in details if detail.get("signature")), None)
    if proof is not None:
        part["signature"] = proof
    content: Any = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
    message["content"] = [part, *parts]


def _signatures(message: Message, dialect: Dialect) -> None:
    if not dialect.call_signatures:
        for call in message.get("tool_calls", ()):
            call.pop("extra_content", None)


def _content(message: Message, dialect: Dialect) -> None:
    content = message.get("content")
    if dialect.content_lists or not isinstance(content, list):
        return
    parts = cast(list[dict[str, Any]], content)
    foreign = next((str(part.get("type")) for part in parts if part.get("type") != "text"), None)
    if foreign is not None:
        raise Unsupported(f"this model's server takes text only, no content of type {foreign}", field="messages")
    message["content"] = "".join([part["text"] for part in parts])


_STEPS: tuple[Callable[[Message, Dialect], None], ...] = (_role, _refusal, _reasoning, _signatures, _content)


def _images_after_tools(messages: list[Message]) -> list[Message]:
    """Images that tools gave, moved behind the answers of all tools: nothing else may stand between those."""
    moved: list[Message] = []
    images: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] != "tool":
            _flush(images, moved)
        moved.append(message)
        content = message.get("content")
        if message["role"] == "tool" and isinstance(content, list):
            parts = cast(list[dict[str, Any]], content)
            images.extend([part for part in parts if part.get("type") != "text"])
            message["content"] = "".join([part["text"] for part in parts if part.get("type") == "text"]) or _IMAGE_NOTE
    _flush(images, moved)
    return moved


def _flush(images: list[dict[str, Any]], moved: list[Message]) -> None:
    if images:
        moved.append({"role": "user", "content": [{"type": "text", "text": _IMAGE_NOTE}, *images]})
        images.clear()


def _rename_calls(message: Message, allowed: re.Pattern[str], ids: dict[str, str]) -> None:
    """Ids of calls as the server wants them: the same one in the call and in its answer, and in every turn."""
    for call in message.get("tool_calls", ()):
        call["id"] = _renamed(call["id"], allowed, ids)
    if "tool_call_id" in message:
        message["tool_call_id"] = _renamed(message["tool_call_id"], allowed, ids)


def _renamed(identifier: str, allowed: re.Pattern[str], ids: dict[str, str]) -> str:
    if allowed.fullmatch(identifier):
        return identifier
    if identifier not in ids:
        digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()
        ids[identifier] = "".join([_DIGITS[byte % len(_DIGITS)] for byte in digest[:_ID_LENGTH]])
    return ids[identifier]
