"""A server that is killed or stopped in the middle of answers: the next one goes on with them."""

import asyncio
import contextlib
import signal
import sqlite3
from pathlib import Path

import msgspec
import pytest

from cauce.domain.stream import Whose
from cauce.stores.sqlite.stream_erasing import Erase
from cauce.testing.upstream import Reply, Upstream
from cauce.testing.upstream.reply import Ask
from tests.e2e.process import Serve
from tests.e2e.tale import BODY, RAW, TALE, Teller, begin, check_whole, ended, killed_after, rest, started, state, table
from tests.http import ask, connection, within

pytestmark = pytest.mark.anyio


async def test_answer_cut_by_a_kill_is_gone_on_with_exactly_by_the_next_start(tmp_path: Path) -> None:
    teller = Teller(before=7)
    async with Upstream(teller) as upstream:
        seen = await killed_after(tmp_path, table(upstream.base_url), 7)
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await rest(serve.port, seen)
            late = await ask(serve.port, "GET", "/chat/stream/s/resume?after=0")
            told = (await ask(serve.port, "GET", "/usage?group_by=provider")).json()
    check_whole(seen, response)
    assert late.body.endswith(response.body.partition(b"\n\n")[2])
    assert len(teller.begun) == 2 and teller.begun[1] == TALE[: len(teller.begun[1])] != ""
    again = next(frame for frame in response.frames() if frame["type"] == "error")
    assert again["retrying"] and again["strategy"] == "prefill"
    assert again["data"] == "the server stopped before the answer was complete", "nobody has to ask again"
    last = response.frames()[-1]
    assert last["finish_reason"] == "stop" and len(last["attempts"]) == 2
    assert "ask again" not in str(last["attempts"])
    assert last["usage"]["output_tokens"] == told["total"]["output_tokens"] > 5, "the ledger has the lost attempt too"
    assert told["total"]["requests"] == 1


async def test_lost_attempt_is_on_the_account_of_the_deployment_that_made_it(tmp_path: Path) -> None:
    async with Upstream(Teller(before=7)) as upstream:
        places = "".join([f'[[providers.up.deployments]]\nname = "{name}"\n' for name in ("east", "west")])
        toml = table(upstream.base_url).replace("[facts", f"{places}[facts")
        seen = await killed_after(tmp_path, toml + "input_price = 1.0\noutput_price = 10.0\n", 7)
        with Serve(tmp_path) as serve:
            await started(serve)
            last = (await rest(serve.port, seen)).frames()[-1]
            told = (await ask(serve.port, "GET", "/usage?group_by=deployment")).json()
    assert {group["deployment"] for group in told["groups"]} <= {"east", "west"}
    assert last["usage"]["output_tokens"] == told["total"]["output_tokens"]


async def test_stream_that_nothing_was_read_of_is_opened_anew_by_the_next_start(tmp_path: Path) -> None:
    async with Upstream(Reply(silent=True), Reply(text="a b")) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await client.send(
                    "POST", "/chat/stream/s", b'{"model":"up/m","messages":[{"role":"user","content":"x"}]}'
                )
                await client.head()
                await within(client.until(b'"status":"attempt"'))
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await within(ask(serve.port, "GET", "/chat/stream/s/resume?after=0"), 20)
    frames = response.frames()
    assert frames[-1]["type"] == "complete" and frames[-1]["data"] == "a b"
    assert [frame["type"] for frame in frames].count("start") == 1


async def test_cancel_survives_kill_and_nothing_is_regenerated(tmp_path: Path) -> None:
    teller = Teller(before=3)
    async with Upstream(teller) as upstream:
        await killed_after(tmp_path, table(upstream.base_url), 3)
        # As it is left where the kill comes between the cancel and the end that it leads to.
        [file] = tmp_path.rglob("streams.db")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
            asked = "UPDATE streams SET cancel_requested = 1, cancel_reason = 'requested' WHERE terminal_at IS NULL"
            assert database.execute(asked).rowcount == 1
        with Serve(tmp_path) as serve:
            await started(serve)
            found = await ended(serve.port)
    assert found["state"] == "cancelled" and len(teller.begun) == 1


async def test_erasure_survives_kill_and_nothing_is_left(tmp_path: Path) -> None:
    teller = Teller(before=3)
    async with Upstream(teller) as upstream:
        await killed_after(tmp_path, table(upstream.base_url), 3)
        [file] = tmp_path.rglob("streams.db")
        assert b"palabra1" in b"".join([path.read_bytes() for path in file.parent.glob("streams.db*")])
        # As it is left where the kill comes between what an erasure says first and the end that it leads to.
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
            assert len(Erase(Whose("default/anonymous"), lambda _: None).apply(database, again=False).open) == 1
        with Serve(tmp_path) as serve:
            await started(serve)
            async with asyncio.timeout(60):
                while (await ask(serve.port, "DELETE", "/users?all=true")).json()["pending"]:
                    pass
            assert (await ask(serve.port, "GET", "/chat/stream/s")).status == 410
            assert await asyncio.to_thread(serve.stop, signal.SIGTERM) == 0
        assert b"palabra" not in b"".join([path.read_bytes() for path in file.parent.glob("streams.db*")])
    assert len(teller.begun) == 1


async def test_answer_is_ended_honestly_where_recovery_is_off(tmp_path: Path) -> None:
    teller = Teller(before=3)
    async with Upstream(teller) as upstream:
        seen = await killed_after(tmp_path, table(upstream.base_url) + "[recovery]\nattempts = 0\n", 3)
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await rest(serve.port, seen)
            found = await state(serve.port)
    (last,) = response.frames()
    assert (last["type"], last["final_error"], last["error_code"]) == ("error", True, "overloaded")
    assert (last["epoch"], last["partial"]) == (2, TALE[: len(last["partial"])])
    assert (found["state"], found["epoch"]) == ("incomplete", 2) and len(teller.begun) == 1


async def test_next_start_goes_on_with_each_answer_as_its_own_route_says(tmp_path: Path) -> None:
    def told(request: Ask) -> Reply:
        last = request.body["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        return Reply(TALE[len(begun) :], stall_after=None if begun else 5)

    routes = "".join([f'[models.{name}]\ncandidates = ["up/m"]\n' for name in ("goes-on", "ends")])
    async with Upstream(told) as upstream:
        toml = table(upstream.base_url) + "[recovery]\nattempts = 0\n" + routes
        (tmp_path / "cauce.toml").write_text(
            toml.replace("[models.ends]", "recovery = { attempts = 3 }\n[models.ends]")
        )
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as one, connection(serve.port) as other:
                for name, client in {"goes-on": one, "ends": other}.items():
                    body = f'{{"model":"{name}","messages":[{{"role":"user","content":"Tell."}}]}}'
                    await client.send("POST", f"/chat/stream/{name}", body.encode())
                    await client.head()
                    await within(client.until("palabra4ñ ".encode()), 20)
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        with Serve(tmp_path) as serve:
            await started(serve)
            found = {name: (await ended(serve.port, name))["state"] for name in ("goes-on", "ends")}
    assert found == {"goes-on": "completed", "ends": "incomplete"} and len(upstream.requests) == 3


def two_choices(*words: str) -> tuple[bytes, ...]:
    """Chunks of a chat stream with two answers: `words` in turn, each in both."""
    head = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    said = [
        f'{head}[{{"index":{place},"delta":{{"content":"{word}{place} "}}}}]}}' for word in words for place in (0, 1)
    ]
    ends = [f'{head}[{{"index":{place},"delta":{{}},"finish_reason":"stop"}}]}}' for place in (0, 1)]
    return tuple([chunk.encode() for chunk in (*said, *ends, "[DONE]")])


async def test_several_answers_that_nobody_was_shown_begin_anew_after_a_kill(tmp_path: Path) -> None:
    body = {"model": "whole", "messages": BODY["messages"], "n": 2}
    async with Upstream(Reply(chunks=two_choices("lost", "never"), stall_after=2)) as upstream:
        toml = table(upstream.base_url) + '[models.whole]\ncandidates = ["up/m"]\nbuffer = true\n'
        (tmp_path / "cauce.toml").write_text(toml)
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await client.send("POST", "/v1/chat/completions", msgspec.json.encode(body), {"Idempotency-Key": "two"})
                while (await state(serve.port, "openai-chat:two")).get("tail", 0) < 4:
                    pass
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        upstream.script(Reply(chunks=two_choices("one", "more")))
        with Serve(tmp_path) as serve:
            await started(serve)
            told = await within(ask(serve.port, "POST", "/v1/chat/completions", body, {"Idempotency-Key": "two"}), 20)
            streamed = await within(
                ask(serve.port, "GET", "/chat/stream/openai-chat:two/resume?wire=openai-chat&after=0"), 20
            )
    assert [one["message"]["content"] for one in told.json()["choices"]] == ["one0 more0 ", "one1 more1 "]
    assert [one["finish_reason"] for one in told.json()["choices"]] == ["stop", "stop"]
    assert b"lost" not in streamed.body and b"more1" in streamed.body and streamed.complete
    assert len(upstream.requests) == 1, "since the next start"


@pytest.mark.parametrize("again", [TALE, "Otra respuesta."], ids=["the same words", "other words"])
async def test_plain_answer_of_a_key_is_whole_after_a_kill_though_its_model_begins_anew(
    tmp_path: Path, again: str
) -> None:
    path, key = "/v1/chat/completions", {"Idempotency-Key": "k"}
    async with Upstream(Reply(TALE, stall_after=19)) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url).partition("[facts")[0])
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await client.send("POST", path, RAW, key)
                while (await state(serve.port, "openai-chat:k")).get("tail", 0) < 4:
                    pass
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        upstream.script(Reply(again))
        with Serve(tmp_path) as serve:
            await started(serve)
            (choice,) = (await within(ask(serve.port, "POST", path, RAW, key), 20)).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (again, "stop")
    assert len(upstream.requests) == 1, "since the next start"


async def test_time_that_a_client_gives_its_call_bounds_it_across_a_kill(tmp_path: Path) -> None:
    def told(request: Ask) -> Reply:
        # Who goes on with it would do so for minutes, and never falls silent.
        return Reply("palabra " * 4000, pace=0.05) if len(upstream.requests) > 2 else Reply(TALE, stall_after=5)

    async with Upstream(told) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as one, connection(serve.port) as other:
                for name, client in {"late": one, "over": other}.items():
                    await client.send("POST", f"/chat/stream/{name}", RAW, {"X-Cauce-Timeout": "60"})
                    await client.head()
                    await within(client.until("palabra4ñ ".encode()), 20)
                await asyncio.to_thread(serve.stop, signal.SIGKILL)
        # The server was down for as long as that.
        [file] = tmp_path.rglob("streams.db")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
            for name, seconds in {"late": 54, "over": 60}.items():
                asked = "UPDATE streams SET created = created - ? WHERE id = ?"
                assert database.execute(asked, (seconds, name)).rowcount == 1
        with Serve(tmp_path) as serve:
            await started(serve)
            last = {name: (await rest(serve.port, b"", name)).frames()[-1] for name in ("late", "over")}
    for frame in last.values():
        assert (frame["type"], frame["final_error"], frame["error_code"]) == ("error", True, "timeout")
        assert frame["partial"].startswith("palabra0ñ ")
    assert len(upstream.requests) == 3, "nobody is asked for what is over"


async def test_server_that_is_stopped_hands_over_and_the_next_one_goes_on(tmp_path: Path) -> None:
    teller = Teller(before=5)
    async with Upstream(teller) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url) + "[server]\ndrain = 0.2\n")
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                seen = await begin(client, 5)
                stopping = asyncio.ensure_future(asyncio.to_thread(serve.stop, signal.SIGTERM))
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    # Never a clean end of the body: the answer has not ended.
                    while True:
                        assert await within(client.chunk(), 20) != b""
                assert await within(stopping, 20) == 0
            await within(upstream.closed.wait())
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await rest(serve.port, seen)
            told = (await ask(serve.port, "GET", "/usage?group_by=provider")).json()
    check_whole(seen, response)
    assert len(teller.begun) == 2 and told["total"]["output_tokens"] == response.frames()[-1]["usage"]["output_tokens"]


async def test_stream_that_nobody_reads_may_end_by_itself_when_the_server_is_stopped(tmp_path: Path) -> None:
    async with Upstream(Reply(TALE, pace=0.03)) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await begin(client, 3)
            assert await asyncio.to_thread(serve.stop, signal.SIGTERM) == 0
        with Serve(tmp_path) as serve:
            await started(serve)
            found = await state(serve.port)
    assert (found["state"], found["epoch"], len(upstream.requests)) == ("completed", 1, 1)


async def test_server_that_is_told_twice_waits_for_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    teller = Teller(before=5)
    async with Upstream(teller) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url) + "[server]\ndrain = 600\n")
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                seen = await begin(client, 5)
                stopping = asyncio.ensure_future(asyncio.to_thread(serve.stop, signal.SIGINT))
                while (await ask(serve.port, "GET", "/health/ready")).status == 200:
                    pass
                assert not stopping.done()
                assert await within(asyncio.to_thread(serve.stop, signal.SIGINT), 20) == 0
                assert await within(stopping) == 0
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await rest(serve.port, seen)
    check_whole(seen, response)


async def test_server_that_is_being_stopped_is_still_there_for_its_streams_and_refuses_what_is_new(
    tmp_path: Path,
) -> None:
    teller = Teller(before=5)
    async with Upstream(teller) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url))
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                await begin(client, 5)
            stopping = asyncio.ensure_future(asyncio.to_thread(serve.stop, signal.SIGTERM))
            while (await ask(serve.port, "GET", "/health/ready")).status == 200:
                pass
            refused = [
                await ask(serve.port, "POST", path, BODY) for path in ("/chat/stream/new", "/v1/chat/completions")
            ]
            refused.append(await ask(serve.port, "POST", "/v1/chat/completions", BODY, {"Idempotency-Key": "new"}))
            attached = asyncio.ensure_future(ask(serve.port, "POST", "/chat/stream/s", BODY))
            cancelled = await ask(serve.port, "DELETE", "/chat/stream/s")
            assert (await within(attached)).frames()[-1]["type"] == "cancelled"
            assert await within(stopping, 20) == 0
            await within(upstream.closed.wait())
    assert [(one.status, one.headers["retry-after"], one.headers["connection"]) for one in refused] == [
        (503, "1", "close")
    ] * 3
    assert cancelled.json()["state"] == "cancelled" and len(teller.begun) == 1


async def test_stream_of_an_earlier_body_is_attached_to_by_its_id_after_a_takeover(tmp_path: Path) -> None:
    teller = Teller(before=5)
    async with Upstream(teller) as upstream:
        await killed_after(tmp_path, table(upstream.base_url), 5)
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await within(ask(serve.port, "POST", "/chat/stream/s", BODY), 20)
    check_whole(b"", response)
    assert len(teller.begun) == 2


async def test_server_that_is_alone_in_a_folder_of_several_waits_for_no_lease(tmp_path: Path) -> None:
    teller = Teller(before=5)
    toml = f'[streams]\nfolder = "{tmp_path / "streams"}"\nlease = 3600\n'
    async with Upstream(teller) as upstream:
        seen = await killed_after(tmp_path, table(upstream.base_url) + toml, 5)
        with Serve(tmp_path) as serve:
            await started(serve)
            check_whole(seen, await rest(serve.port, seen))
    assert len(teller.begun) == 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_client_without_a_cursor_gets_of_the_next_start_what_came_since_it_left(
    tmp_path: Path, how: signal.Signals
) -> None:
    gate = asyncio.Semaphore(2)
    teller = Teller(before=None)

    def answer(request: Ask) -> Reply:
        reply = teller(request)
        return msgspec.structs.replace(reply, gate=gate) if len(teller.begun) == 1 else reply

    async with Upstream(answer) as upstream:
        (tmp_path / "cauce.toml").write_text(table(upstream.base_url) + "[server]\ndrain = 0.2\n")
        with Serve(tmp_path) as serve:
            await started(serve)
            async with connection(serve.port) as client:
                seen = await begin(client, 2)
            # By the time that it has answered this, the server has noticed that its reader is gone.
            tail = (await state(serve.port))["tail"]
            for written in range(tail + 1, tail + 5):
                gate.release()
                while (await state(serve.port))["tail"] < written:
                    pass
            await asyncio.to_thread(serve.stop, how)
        with Serve(tmp_path) as serve:
            await started(serve)
            response = await within(ask(serve.port, "POST", "/chat/stream/s/resume"), 30)
    resumed, *_ = response.frames()
    assert resumed["resumed"] and "seq" not in resumed
    _, _, rest = response.body.partition(b'"resumed":true')
    check_whole(seen, msgspec.structs.replace(response, body=rest.partition(b"\n\n")[2]))
