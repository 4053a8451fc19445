"""What a recording means in no wire's words, so that the same answer seen through any surface can be compared with it."""

import json
from typing import Any, Literal

import msgspec

from tests.recordings.replay import DATA


class Meaning(msgspec.Struct, eq=True):
    """`calls` are names with their arguments as JSON values. Usage is (input, cached, output); None: not told."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = []
    finish: str = "stop"
    usage: tuple[int, int, int] | None = None
    failed: bool = False


_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "completed": "stop",
    "complete": "stop",
    "max_output_tokens": "length",
}
_FILTERED = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "JAILBREAK"})


def finish_word(word: str | None, calls: list[Any]) -> str:
    """The common word for a finish reason of any wire."""
    if word is not None and (word in _FILTERED or word.startswith("IMAGE_")):
        return "content_filter"
    common = _FINISH.get(word or "stop", "stop")
    return "tool_calls" if common == "stop" and calls else common


def value(arguments: Any) -> Any:
    """Arguments of a call as a JSON value; the free text of a custom tool as other wires have it, an object with `input`."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except json.JSONDecodeError:
        return {"input": arguments}


Difference = Literal["fragments", "several answers", "another shape"]


def difference(recording: dict[str, Any]) -> Difference | None:
    """Why a correct reader does not find what the manifest says of `recording`; None if it should.

    `fragments`: the manifest lists the fragments of a call one by one. `several answers`: the file holds streams one after the
    other, and the manifest tells of the last; what follows the end of the first is another answer. `another shape`: the body is
    not what was asked for, and is refused.
    """
    if recording["status"] != 200:
        return None
    if any(call["name"] is None for call in recording["expected"].get("tool_calls") or ()):
        return "fragments"
    if recording["api"] != "responses":
        return None
    text = (DATA / recording["file"]).read_text("utf-8")
    if recording["stream"]:
        return "several answers" if text.count("event: response.created") > 1 else None
    return None if "output" in json.loads(text) else "another shape"


def meant(recording: dict[str, Any]) -> Meaning:
    """What `recording` means."""
    expected = recording["expected"]
    if recording["status"] != 200 or expected.get("midstream_error"):
        return Meaning(failed=True)
    calls = [
        (call["name"], value(call.get("arguments", call.get("input", call.get("args")))))
        for call in expected.get("tool_calls") or ()
    ]
    if expected.get("finish_reason") == "function_call":
        calls = [_legacy_call(recording)]
    if "custom_tool_call" in (expected.get("output_types") or ()):
        calls += _custom_calls(recording)
    refusal = expected.get("refusal") or ""
    word = expected.get("incomplete") or expected.get("finish_reason") or expected.get("block_reason")
    finish = "content_filter" if refusal or expected.get("block_reason") else finish_word(word, calls)
    return Meaning(
        (expected.get("text") or expected.get("streamed_text") or "") + refusal,
        expected.get("reasoning") or "",
        calls,
        finish,
        usage(expected.get("usage")),
    )


def _legacy_call(recording: dict[str, Any]) -> tuple[str, Any]:
    """The one call of an answer from before there were tool calls; the manifest does not list it."""
    message = json.loads((DATA / recording["file"]).read_text("utf-8"))["choices"][0]["message"]
    return message["function_call"]["name"], value(message["function_call"]["arguments"])


def _custom_calls(recording: dict[str, Any]) -> list[tuple[str, Any]]:
    """Calls of tools that take free text; the manifest does not list them."""
    text = (DATA / recording["file"]).read_text("utf-8")
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    response = json.loads(lines[-1])["response"] if recording["stream"] else json.loads(text)
    calls = [item for item in response["output"] if item["type"] == "custom_tool_call"]
    return [(call["name"], {"input": call["input"]}) for call in calls]


def usage(raw: dict[str, Any] | None) -> tuple[int, int, int] | None:
    """Usage of any wire in the normal form."""
    if not raw:
        return None
    if "prompt_tokens" in raw:
        details = raw.get("prompt_tokens_details") or {}
        return raw["prompt_tokens"], details.get("cached_tokens") or 0, raw.get("completion_tokens") or 0
    if raw.keys() <= {"trafficType"}:
        return None
    if any(name.endswith("TokenCount") for name in raw):
        asked = (raw.get("promptTokenCount") or 0) + (raw.get("toolUsePromptTokenCount") or 0)
        written = (raw.get("candidatesTokenCount") or 0) + (raw.get("thoughtsTokenCount") or 0)
        return asked, raw.get("cachedContentTokenCount") or 0, written
    if "input_tokens_details" in raw or "total_tokens" in raw:
        details = raw.get("input_tokens_details") or {}
        return raw["input_tokens"], details.get("cached_tokens") or 0, raw["output_tokens"]
    read, written = raw.get("cache_read_input_tokens") or 0, raw.get("cache_creation_input_tokens") or 0
    return (raw.get("input_tokens") or 0) + read + written, read, raw.get("output_tokens") or 0
