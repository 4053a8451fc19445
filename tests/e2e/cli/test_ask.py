"""`cauce ask`."""

import asyncio
import os
import signal
import sys

import pytest

from cauce.testing.upstream import Reply, Upstream
from tests.e2e.cli.command import Home
from tests.e2e.cli.terminal import Terminal
from tests.http import within
from tests.serving import upstream_table

pytestmark = pytest.mark.anyio


def in_front_of(home: Home, upstream: Upstream, more: str = "") -> None:
    home.configure(upstream_table("up", upstream.base_url, default_model="fake-model") + more)


async def test_the_answer_goes_to_stdout_alone(home: Home) -> None:
    async with Upstream(Reply(text="The river runs.")) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "Does", "it", "run?")
    assert (asked.code, asked.out, asked.err) == (0, "The river runs.\n", "")
    assert upstream.requests[0]["messages"] == [{"role": "user", "content": "Does it run?"}]
    assert upstream.requests[0]["stream"] is True


async def test_text_reaches_a_pipe_while_the_answer_is_still_coming(home: Home) -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(Reply(text="one two three", gate=gate)) as upstream:
        in_front_of(home, upstream)
        async with home.running("ask", "Count.") as command:
            command.say_no_more()
            gate.release()
            await command.until("one")
            gate.release()
            await command.until("two")
            for _ in range(10):
                gate.release()
            asked = await command.finish()
    assert (asked.code, asked.out) == (0, "one two three\n")


async def test_piped_text_comes_after_the_question(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        await home.cauce("ask", "What changed?", stdin=b"diff --git a b\n+river\n")
    assert upstream.requests[0]["messages"][0]["content"] == "What changed?\n\ndiff --git a b\n+river"


async def test_piped_text_alone_is_the_question(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        await home.cauce("ask", stdin="¿Qué es un cauce?\n".encode())
    assert upstream.requests[0]["messages"][0]["content"] == "¿Qué es un cauce?"


async def test_no_question_is_a_mistake(home: Home) -> None:
    asked = await home.cauce("ask", stdin=b" \n")
    assert (asked.code, asked.out) == (2, "")
    assert asked.err.startswith("cauce: there is no question")
    assert asked.err.count("\n") == 1


async def test_json_is_the_answer_of_the_message_api(home: Home) -> None:
    async with Upstream(Reply(text="The river runs.")) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--json", "Does it run?")
    answer = asked.json()
    assert asked.out.count("\n") == 1
    assert answer["response"] == "The river runs."
    assert answer["model"] == "up/fake-model"
    assert answer["tokens_used"] == 12
    assert answer["usage"]["input_tokens"] == 7
    assert answer["finish_reason"] == "stop"
    assert answer["attempts"] == [{"provider": "up", "model": "fake-model", "level": "primary"}]
    assert not upstream.requests[0].get("stream")


async def test_model_system_text_and_sampling_are_sent(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        await home.cauce(
            "ask", "--model", "up/other", "--system", "Be brief.", "--max-tokens", "9", "--temperature", "0.5", "Hi"
        )
    sent = upstream.requests[0]
    assert sent["model"] == "other"
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["max_tokens"], sent["temperature"]) == (9, 0.5)


async def test_a_model_without_its_provider_is_found_where_it_is_offered(home: Home) -> None:
    async with Upstream() as upstream:
        upstream.models = ["fake-model", "rare-model"]
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--model", "rare-model", "Hi")
    assert asked.code == 0
    assert upstream.requests[0]["model"] == "rare-model"


async def test_a_provider_without_a_default_model_is_asked_for_the_first_it_lists(home: Home) -> None:
    async with Upstream(Reply(text="Here.")) as upstream:
        home.configure(upstream_table("up", upstream.base_url))
        asked = await home.cauce("ask", "Hi")
    assert (asked.code, asked.out, asked.err) == (0, "Here.\n", "")


async def test_a_server_found_on_this_machine_answers(home: Home) -> None:
    async with Upstream(Reply(text="Here.")) as upstream:
        home.configure(f"[discovery]\nports = {{ openai-compatible = [{upstream.port}] }}\n")
        asked = await home.cauce("ask", "Hi", CAUCE_DISCOVERY__ENABLED="true")
    assert (asked.code, asked.out, asked.err) == (0, "Here.\n", "")


THINKING = Reply(
    chunks=(
        b'{"choices":[{"index":0,"delta":{"reasoning_content":"Hmm\\u001b[2J."},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{"content":"Yes\\u001b[2J."},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"[DONE]",
    )
)


async def test_reasoning_is_not_part_of_what_is_piped(home: Home) -> None:
    async with Upstream(THINKING) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "Hi")
    assert (asked.out, asked.err) == ("Yes\x1b[2J.\n", "")


async def test_a_terminal_shows_reasoning_dim_and_no_control_characters_of_the_model(home: Home) -> None:
    terminal = Terminal()
    async with Upstream(THINKING) as upstream:
        in_front_of(home, upstream)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cauce", "ask", "Hi"),
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            cwd=home.folder,
            env=home.environment,
        )
        try:
            await terminal.until("\x1b[2mHmm[2J.\x1b[0m\r\nYes[2J.\r\n")
            assert await within(process.wait()) == 0
        finally:
            os.close(terminal.theirs)
            terminal.close()


async def test_an_unknown_model_is_one_line_and_exit_code_1(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--model", "up/", "Hi")
        other = await home.cauce("ask", "--model", "fake-modle", "Hi")
    assert (asked.code, asked.out) == (1, "")
    assert other.code == 1
    assert other.err.startswith("cauce: model 'fake-modle' does not exist here")
    assert other.err.count("\n") == 1
    assert upstream.requests == []


async def test_a_mistake_in_the_configuration_is_one_line_and_exit_code_2(home: Home) -> None:
    home.configure("[server]\nprot = 1\n")
    asked = await home.cauce("ask", "Hi")
    assert (asked.code, asked.out) == (2, "")
    assert "did you mean 'port'?" in asked.err
    assert asked.err.count("\n") == 1


async def test_with_nothing_configured_the_documentation_answers_and_says_so(home: Home) -> None:
    asked = await home.cauce("ask", "What is Cauce?")
    assert asked.code == 0
    assert "Cauce" in asked.out
    assert asked.err.startswith("answered by offline")
    assert "no model is configured" in asked.err
    assert asked.err.count("\n") == 1


@pytest.mark.parametrize("question", ["hello", "Who won the race yesterday?", "What is Cauce?"])
@pytest.mark.parametrize("more", [[], ["--json"]])
async def test_documentation_that_stands_in_for_a_failed_model_is_a_failure(
    home: Home, question: str, more: list[str]
) -> None:
    async with Upstream(Reply(status=401), Reply(status=401)) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", *more, question)
    assert asked.code == 1
    assert asked.err.startswith("answered by offline") and "up/fake-model failed" in asked.err
    assert asked.out and "OPENAI_API_KEY" not in asked.out, "a key is set"


async def test_documentation_that_was_asked_for_is_no_failure(home: Home) -> None:
    async with Upstream() as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--model", "offline", "hello")
    assert asked.code == 0 and upstream.requests == []


async def test_notes_are_in_spanish_where_the_locale_is(home: Home) -> None:
    asked = await home.cauce("ask", "¿Qué es Cauce?", LC_ALL="es_ES.UTF-8")
    assert asked.err.startswith("responde offline")


async def test_an_answer_from_a_fallback_says_who_failed(home: Home) -> None:
    async with Upstream(Reply(status=500)) as broken, Upstream(Reply(text="Here.")) as whole:
        home.configure(
            upstream_table("broken", broken.base_url)
            + upstream_table("whole", whole.base_url)
            + '[models.pair]\ncandidates = ["broken/a", "whole/b"]\n'
        )
        asked = await home.cauce("ask", "--model", "pair", "Hi")
    assert (asked.code, asked.out) == (0, "Here.\n")
    assert asked.err.startswith("answered by whole/b; broken/a failed: ")
    assert asked.err.count("\n") == 1


async def test_an_error_before_the_answer_is_one_line_and_exit_code_1(home: Home) -> None:
    async with Upstream(Reply(status=401, error={"message": "Bad key.", "code": "invalid_api_key"})) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--model", "up", "Hi")
    assert (asked.code, asked.out) == (1, "")
    assert asked.err.startswith("cauce: up refused the key that Cauce has for it: check api_key of [providers.up]")
    assert asked.err.endswith("Bad key.\n") and asked.err.count("\n") == 1


async def test_an_error_inside_the_answer_keeps_the_text_that_came(home: Home) -> None:
    async with Upstream(Reply(text="The river stops here.", cut_after=2)) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--model", "up", "Hi")
    assert (asked.code, asked.out) == (1, "The river \n")
    assert asked.err.startswith("cauce: ")
    assert asked.err.count("\n") == 1


async def test_an_answer_that_hit_its_bound_says_so(home: Home) -> None:
    async with Upstream(Reply(text="The river", finish_reason="length")) as upstream:
        in_front_of(home, upstream)
        asked = await home.cauce("ask", "--max-tokens", "2", "Hi")
    assert (asked.code, asked.out) == (0, "The river\n")
    assert "cut short" in asked.err


async def test_interrupting_closes_the_upstream_and_prints_nothing_ugly(home: Home) -> None:
    async with Upstream(Reply(text="The river runs on and on.", stall_after=2)) as upstream:
        in_front_of(home, upstream)
        async with home.running("ask", "Hi") as command:
            command.say_no_more()
            await command.until("The river")
            command.process.send_signal(signal.SIGINT)
            await within(upstream.closed.wait())
            asked = await command.finish()
    assert (asked.code, asked.out, asked.err) == (130, "The river \n", "")


async def test_interrupting_before_the_first_word_closes_the_upstream(home: Home) -> None:
    async with Upstream(Reply(silent=True)) as upstream:
        in_front_of(home, upstream)
        async with home.running("ask", "Hi") as command:
            command.say_no_more()
            await within(upstream.asked.wait(), 20)
            command.process.send_signal(signal.SIGINT)
            await within(upstream.closed.wait())
            asked = await command.finish()
    assert (asked.code, asked.out, asked.err) == (130, "", "")


async def test_a_reader_that_leaves_closes_the_upstream_quietly(home: Home) -> None:
    gate = asyncio.Semaphore(1)
    async with Upstream(Reply(text="one two three four", gate=gate)) as upstream:
        in_front_of(home, upstream)
        async with home.running("ask", "Count.") as command:
            command.say_no_more()
            await command.until("one")
            command.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            gate.release()
            gate.release()
            await within(upstream.closed.wait())
            assert command.process.stderr is not None
            assert await within(command.process.stderr.read()) == b""
