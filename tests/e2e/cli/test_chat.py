"""`cauce chat`: over pipes, and in a terminal."""

import asyncio
import os
import signal
import stat
import sys

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.cli.command import PATIENCE, Home
from tests.e2e.cli.terminal import PROMPT, Terminal
from tests.http import within
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio


def in_front_of(home: Home, upstream: Upstream) -> None:
    home.configure(upstream_table("up", upstream.base_url, default_model="fake-model"))


def said(upstream: Upstream, turn: int) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in upstream.requests[turn]["messages"]]


async def test_the_second_question_carries_the_first_turn(home: Home) -> None:
    async with Upstream(Reply(text="The Tajo."), Reply(text="1007 km.")) as upstream:
        in_front_of(home, upstream)
        chat = await home.cauce("chat", stdin=b"Which river is longest?\n\nHow long is it?\n")
    assert (chat.code, chat.out) == (0, "The Tajo.\n1007 km.\n")
    assert said(upstream, 0) == [("user", "Which river is longest?")]
    assert said(upstream, 1) == [
        ("user", "Which river is longest?"),
        ("assistant", "The Tajo."),
        ("user", "How long is it?"),
    ]


async def test_each_answer_is_followed_by_who_gave_it_and_what_it_took(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        chat = await home.cauce("chat", stdin=b"Hi")
    assert chat.err.startswith("up/fake-model · primary · 7 + 5 tokens · ")
    assert chat.err.endswith(" s\n")


async def test_a_file_can_be_the_conversation(home: Home) -> None:
    questions = home.folder / "questions"
    questions.write_text("One?\nTwo?\n")
    async with Upstream(Reply(text="One."), Reply(text="Two.")) as upstream:
        in_front_of(home, upstream)
        with questions.open() as opened:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cauce", "chat"),
                stdin=opened,
                stdout=asyncio.subprocess.PIPE,
                cwd=home.folder,
                env=home.environment,
            )
            out, _ = await within(process.communicate(), PATIENCE)
    assert out == b"One.\nTwo.\n"


async def test_system_text_and_model_hold_from_then_on_and_clear_forgets(home: Home) -> None:
    async with Upstream(Reply(text="Yes.")) as upstream:
        in_front_of(home, upstream)
        lines = [
            "One?",
            "/system Be brief.",
            "/model up/other",
            "Two?",
            "/clear",
            "/system",
            "Three?",
            "/exit",
            "Four?",
        ]
        chat = await home.cauce("chat", stdin="\n".join(lines).encode())
    assert chat.code == 0
    assert len(upstream.requests) == 3
    assert said(upstream, 1)[0] == ("system", "Be brief.")
    assert [request["model"] for request in upstream.requests] == ["fake-model", "other", "other"]
    assert said(upstream, 2) == [("user", "Three?")]


async def test_a_model_that_does_not_exist_is_refused_and_the_old_one_stays(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        chat = await home.cauce("chat", stdin=b"/model fake-modle\nHi\n/wat\n")
    assert "model 'fake-modle' does not exist here" in chat.err
    assert "there is no command /wat" in chat.err
    assert upstream.requests[0]["model"] == "fake-model"


async def test_a_path_is_no_command(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        await home.cauce("chat", stdin=b"/etc/hosts is what?\n")
    assert said(upstream, 0) == [("user", "/etc/hosts is what?")]


async def test_starting_with_a_model_that_does_not_exist_fails_at_once(home: Home) -> None:
    chat = await home.cauce("chat", "--model", "nope", stdin=b"Hi\n")
    assert (chat.code, chat.out) == (1, "")
    assert chat.err.startswith("cauce: model 'nope' does not exist here")


async def test_a_failed_answer_is_told_and_forgotten_and_the_conversation_goes_on(home: Home) -> None:
    async with Upstream(Reply(status=400, error={"message": "Too odd."}), Reply(text="Here.")) as upstream:
        in_front_of(home, upstream)
        chat = await home.cauce("chat", "--model", "up", stdin=b"One?\nTwo?\n")
    assert (chat.code, chat.out) == (1, "Here.\n")
    assert "cauce: up: Too odd.\n" in chat.err
    assert said(upstream, 1) == [("user", "Two?")]


async def test_interrupting_stops_the_answer_alone_and_keeps_what_came_marked(home: Home) -> None:
    async with Upstream(Reply(text="The river runs on.", stall_after=2), Reply(text="Good.")) as upstream:
        in_front_of(home, upstream)
        async with home.running("chat") as command:
            command.type("Tell me.\n")
            await command.until("The river")
            command.process.send_signal(signal.SIGINT)
            await within(upstream.closed.wait())
            command.type("Enough?\n")
            await command.until("Good.")
            chat = await command.finish()
    assert (chat.code, chat.out) == (0, "The river \nGood.\n")
    assert chat.err.startswith("stopped; the answer above is incomplete\n")
    role, text = said(upstream, 1)[1]
    assert role == "assistant"
    assert text.startswith("The river \n\n[")


async def test_interrupting_between_answers_leaves(home: Home) -> None:
    async with Upstream(Reply(text="Hello.")) as upstream:
        in_front_of(home, upstream)
        async with home.running("chat") as command:
            command.type("Hi\n")
            await command.until("Hello.\n")
            assert command.process.stderr is not None
            await within(command.process.stderr.readline())
            command.process.send_signal(signal.SIGINT)
            assert await within(command.process.wait(), PATIENCE) == 130
            assert await command.process.stderr.read() == b""


async def test_in_a_terminal_a_question_is_edited_sent_stopped_and_kept_in_a_private_history(home: Home) -> None:
    answers = (Reply(text="**The river** runs."), Reply(text="Endless water flows.", stall_after=2))
    terminal = Terminal()
    async with Upstream(*answers) as upstream:
        in_front_of(home, upstream)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cauce", "chat"),
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            cwd=home.folder,
            env={**home.environment, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
            preexec_fn=terminal.take,
        )
        os.close(terminal.theirs)
        try:
            await terminal.until("talking with auto (up/fake-model)")
            await terminal.until(PROMPT)
            terminal.type("Two\x1b\rlines\r")
            await terminal.until("up/fake-model · primary · 7 + 5 tokens")
            await terminal.until(PROMPT)
            terminal.type("More\r")
            await terminal.until("Endless")
            terminal.type("\x03")
            await within(upstream.closed.wait())
            await terminal.until("stopped")
            await terminal.until(PROMPT)
            terminal.type("half a line\x03")
            await terminal.until(PROMPT)
            terminal.type("\x04")
            assert await within(process.wait(), PATIENCE) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            terminal.close()
    assert said(upstream, 0) == [("user", "Two\nlines")]
    history = home.folder / ".local/share/cauce/chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+Two\n+lines\n" in history.read_text()
    assert "half a line" not in history.read_text()
