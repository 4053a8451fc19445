"""What is different for the coding agent Codex: it sends a prompt of its own, and its tools are its own."""

from typing import Any

import msgspec

from cauce.testing.upstream import Reply
from cauce.testing.upstream.reply import SIGNATURE
from tests.clients.py import given
from tests.clients.scenarios import ANIMAL, CLEAR, HELLO, SCENARIOS, Scenario, Seen

NOTES = "the river runs"
RUN = Reply(text="", tool_calls=(("exec_command", '{"cmd": "cat notes.txt"}'),))
THOUGHT_RUN = msgspec.structs.replace(RUN, reasoning="Look at the notes.")


def _stream(seen: Seen) -> None:
    assert seen.client == {"text": HELLO}
    assert ("user", given.SAY_HELLO) in seen.asked[0].turns
    assert "coding agent" in seen.asked[0].system and "exec_command" in seen.asked[0].tools


def _tools(seen: Seen) -> None:
    assert seen.client == {"text": CLEAR.text, "commands": [f"{NOTES}\n"]}
    first, second = seen.asked
    assert first.calls == () and second.calls == (("exec_command", {"cmd": "cat notes.txt"}),)
    assert [name for name, _ in second.results] == ["exec_command"] and NOTES in second.results[0][1]


def _signed(seen: Seen) -> None:
    _tools(seen)
    assert seen.asked[0].reasons
    if seen.asked[1].wire != "chat":
        assert seen.asked[1].signatures == (SIGNATURE,)


def _changed(name: str, **changes: Any) -> Scenario:
    found = next(scenario for scenario in SCENARIOS if scenario.name == name)
    return msgspec.structs.replace(found, **changes)


SCENARIOS_OF_CODEX = (
    _changed("stream", check=_stream),
    _changed("tools_stream", check=_tools, replies=(RUN, CLEAR)),
    _changed("signed_stream", check=_signed, replies=(THOUGHT_RUN, CLEAR), case="tools_stream"),
    _changed("image"),
    _changed("structured_stream", replies=(ANIMAL,)),
    _changed("reasoning_stream"),
    _changed("usage_stream"),
    _changed("unknown_model"),
    _changed("wrong_key"),
    _changed("busy_stream", case="error"),
    _changed("broken"),
)
