"""What a reader of each wire has been shown, read from the bytes of its frames by the wire's own names: its text, and its calls of tools.

Wires differ in what they can take back. On the chat and the Anthropic wire that is nothing: a call comes whole there, and an answer that
begins anew ends as one that is not all there. On the others what was taken back is dropped, as their clients drop it.
"""

from typing import Any

import msgspec

from cauce.testing.chaos.reader import Frame, Wire

KEEPING: tuple[Wire, ...] = ("openai-chat", "anthropic")
"""Wires that can take nothing back."""

_REASONS = {"tool_calls": "tool_calls", "tool_use": "tool_calls", "tool-calls": "tool_calls"}


class Call(msgspec.Struct):
    """A call as far as it was shown. `arguments` are those of its end, `pieces` what came before that, joined."""

    call_id: str
    name: str = ""
    pieces: str = ""
    arguments: str | None = None


class Shown(msgspec.Struct):
    """`text` is what stands at the end, `reason` why it ended, in the words of ours, where it is calls. `incomplete`: the wire says that
    this is not all. `wrong` are contradictions in the wire itself."""

    text: str = ""
    calls: list[Call] = []
    """Those that are whole, in their order."""
    reason: str = ""
    incomplete: bool = False
    wrong: list[str] = []


def shown(wire: Wire, frames: list[Frame]) -> Shown:
    """What `frames` of a wire other than ours show."""
    bodies: list[dict[str, Any]] = []
    for frame in frames:
        payload = frame.data.partition(b"data:")[2].strip()
        if payload.startswith(b"{"):
            bodies.append(msgspec.json.decode(payload))
    match wire:
        case "openai-chat":
            found = _chat(bodies)
        case "anthropic":
            found = _anthropic(bodies)
        case "openai-responses":
            found = _responses(bodies)
        case "ui":
            found = _ui(bodies)
        case "native":
            found = Shown()
    for call in found.calls:
        if call.arguments is None:
            call.arguments = call.pieces
        elif call.pieces != call.arguments:
            found.wrong.append(f"the call {call.call_id} is not what its pieces are")
    return found


def _chat(bodies: list[dict[str, Any]]) -> Shown:
    found = Shown()
    for body in bodies:
        found.incomplete = found.incomplete or _says_incomplete(body)
        for choice in body.get("choices", []):
            delta = choice.get("delta", {})
            found.text += delta.get("content") or ""
            for piece in delta.get("tool_calls", []):
                if piece["index"] == len(found.calls):
                    found.calls.append(Call(piece["id"], piece["function"]["name"]))
                elif piece["index"] != len(found.calls) - 1:
                    found.wrong.append(f"a piece of call {piece['index']} comes where {len(found.calls)} have begun")
                    continue
                found.calls[-1].pieces += piece["function"].get("arguments") or ""
            found.reason = _reason(choice.get("finish_reason")) or found.reason
    return found


def _anthropic(bodies: list[dict[str, Any]]) -> Shown:
    found = Shown()
    blocks: dict[int, Call] = {}
    for body in bodies:
        delta = body.get("delta", {})
        match body.get("type"):
            case "content_block_start" if body["content_block"]["type"] == "tool_use":
                blocks[body["index"]] = Call(body["content_block"]["id"], body["content_block"]["name"])
            case "content_block_delta" if body["index"] in blocks:
                blocks[body["index"]].pieces += delta.get("partial_json", "")
            case "content_block_delta":
                found.text += delta.get("text", "")
            case "content_block_stop" if body["index"] in blocks:
                found.calls.append(blocks.pop(body["index"]))
            case "message_delta":
                found.reason = _reason(delta.get("stop_reason"))
                found.incomplete = _says_incomplete(body)
            case _:
                pass
    found.wrong += [f"the call {call.call_id} has no end" for call in blocks.values()]
    return found


def _responses(bodies: list[dict[str, Any]]) -> Shown:
    found = Shown()
    texts: dict[str, str] = {}
    calls: dict[str, Call] = {}
    gone: set[str] = set()
    output: list[dict[str, Any]] | None = None
    for body in bodies:
        item = body.get("item", {})
        match body.get("type"):
            case "response.output_item.added":
                gone.update(item.get("supersedes", []))
                if item["type"] == "function_call":
                    calls[item["id"]] = Call(item["call_id"], item["name"])
                else:
                    texts[item["id"]] = ""
            case "response.output_text.delta":
                texts[body["item_id"]] += body["delta"]
            case "response.function_call_arguments.delta":
                calls[body["item_id"]].pieces += body["delta"]
            case "response.output_item.done" if item["type"] == "function_call" and item["status"] == "completed":
                calls[item["id"]].arguments = item["arguments"]
            case "response.completed" | "response.incomplete" | "response.failed":
                output = body["response"]["output"]
                found.incomplete = body["type"] != "response.completed"
            case _:
                pass
    found.text = "".join([text for name, text in texts.items() if name not in gone])
    found.calls = [call for name, call in calls.items() if call.arguments is not None and name not in gone]
    found.reason = "tool_calls" if found.calls and not found.incomplete else ""
    if output is not None:
        _same_as_whole(found, output)
    return found


def _same_as_whole(found: Shown, output: list[dict[str, Any]]) -> None:
    """Whether the whole response, which comes with the last event, says the same as those before it."""
    text = "".join([part["text"] for item in output if item["type"] == "message" for part in item["content"]])
    calls = [
        (item["call_id"], item["arguments"])
        for item in output
        if item["type"] == "function_call" and item["status"] == "completed"
    ]
    if text != found.text:
        found.wrong.append("the whole response has another text than what was shown and not taken back")
    if calls != [(call.call_id, call.arguments) for call in found.calls]:
        found.wrong.append("the whole response has other calls than what was shown and not taken back")


def _ui(bodies: list[dict[str, Any]]) -> Shown:
    found = Shown()
    calls: dict[str, Call] = {}
    for body in bodies:
        match body.get("type"):
            case "text-delta":
                found.text += body["delta"]
            case "tool-input-start":
                calls[body["toolCallId"]] = Call(body["toolCallId"], body["toolName"])
            case "tool-input-delta":
                calls[body["toolCallId"]].pieces += body["inputTextDelta"]
            case "tool-input-available":
                calls[body["toolCallId"]].arguments = msgspec.json.encode(body["input"]).decode()
            case "reset-step":
                # An answer of the run has one step: what is dropped is all of it.
                found.text, calls = "", {}
            case "finish":
                found.reason = _reason(body.get("finishReason"))
            case "error" | "abort":
                found.incomplete = True
            case _:
                pass
    found.calls = [call for call in calls.values() if call.arguments is not None]
    return found


def _says_incomplete(body: dict[str, Any]) -> bool:
    return bool(body.get("cauce", {}).get("incomplete"))


def _reason(said: str | None) -> str:
    return _REASONS.get(said or "", "")
