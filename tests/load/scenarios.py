"""What is tried, at a size that the caller says. Each returns what was seen; the tests say what must be."""

import asyncio
import random
import re
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from bench import process_tree
from cauce.testing.upstream import Ask, Limits, Record, Reply, Tokens, Upstream
from tests.http import ask, connection
from tests.load.gateway import Tally, bearer, chat, gateway, keys, provider
from tests.redis_server import RedisServer
from tests.surfaces import SURFACES, Surface


class Burst(msgspec.Struct, frozen=True):
    """Clients that all come at once, those of one key before those of the other. `told`: our configuration says the upstream's limits."""

    clients: int
    limits: Limits
    told: bool = True
    deadline: float = 60.0
    takes: float = 0.2
    """Seconds of one answer."""


async def burst(folder: Path, size: Burst) -> tuple[Tally, Record]:
    """What became of them, and what the upstream saw: it refuses what is over its limits."""
    tally = Tally()
    limits = size.limits
    async with Upstream(Reply(delay=size.takes), limits=limits) as upstream:
        known = {"max_concurrent": limits.concurrent, "requests_per_minute": limits.per_minute} if size.told else {}
        toml = (
            provider(upstream, **known)
            + f"[timeouts]\ntotal = {size.deadline}\n[queue]\nwait = {size.deadline}\n"
            + keys("first", "second")
        )
        async with gateway(folder, toml) as served:

            async def client(number: int) -> None:
                name = "first" if number < size.clients // 2 else "second"
                body = chat(stream=number % 3 == 0)
                began = monotonic()
                tally.take(name, await ask(served.port, "POST", "/v1/chat/completions", body, bearer(name)))
                tally.longest = max(tally.longest, monotonic() - began)

            await asyncio.gather(*[client(number) for number in range(size.clients)])
        return tally, upstream.record


_SCHEMA = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
_WANTED = {"type": "json_schema", "json_schema": {"name": "animal", "strict": True, "schema": _SCHEMA}}
_RIGHT, _WRONG = '{"legs": 4}', "A cat, from a model that was asked for JSON."


def _repairs(asked: Ask) -> bool:
    """Whether it is asked to put right what it has answered."""
    return b"cannot be used" in msgspec.json.encode(asked.body)


class Mixed(msgspec.Struct, frozen=True):
    """What became of `calls` of all kinds, by the upstream's account and by the ledger's."""

    served: Tokens
    usage: dict[str, Any]
    calls: int


async def mixed(folder: Path, calls: int, *, at_once: int = 32) -> Mixed:
    """Calls that are answered, fail, are asked again, are cut, break off, whose clients leave, and that ask for JSON and get it at the second
    turn or not at all; on all surfaces, plain and streamed."""
    chance = random.Random(4)

    def counted(_: Ask) -> Reply:
        read, written = chance.randrange(1, 5000), chance.randrange(1, 900)
        return Reply(usage=Tokens(read, written, cached=chance.randrange(read), reasoning=chance.randrange(written)))

    def moody(_: Ask) -> Reply:
        return Reply(status=500, error={"message": "no"}) if chance.random() < 0.3 else counted(_)

    async with Upstream() as upstream:
        upstream.scripts = {
            "well": [counted],
            "moody": [moody],
            "cut": [lambda ask: msgspec.structs.replace(counted(ask), cut_after=2)],
            "broken": [lambda ask: msgspec.structs.replace(counted(ask), error={"message": "no"}, error_after=2)],
            "stalled": [lambda ask: msgspec.structs.replace(counted(ask), stall_after=2)],
            "mended": [lambda ask: msgspec.structs.replace(counted(ask), text=_RIGHT if _repairs(ask) else _WRONG)],
            "wrong": [lambda ask: msgspec.structs.replace(counted(ask), text=_WRONG)],
        }
        toml = (
            "[retry]\nbase = 0.01\n[breaker]\nenabled = false\n[recovery]\nattempts = 2\n"
            + _told("mended", "wrong")
            + "".join(
                [
                    f'[providers.{one.name}]\n{one.provider.format(root=upstream.root)}api_key = "k"\n'
                    for one in SURFACES
                ]
            )
        )
        async with gateway(folder, toml) as served:
            room = asyncio.Semaphore(at_once)

            async def client(number: int) -> None:
                surface = SURFACES[number % len(SURFACES)]
                kind = _KINDS[number // 4 % len(_KINDS)]
                async with room:
                    await _asked(served.port, surface, kind, stream=number % 3 != 0 or kind == "stalled")

            await asyncio.gather(*[client(number) for number in range(calls)])
            usage = await served.get("/usage")
        served_tokens = Tokens(
            *[sum([getattr(one, name) for one in upstream.record.served.values()]) for name in Tokens.__struct_fields__]
        )
    return Mixed(served_tokens, usage, calls)


_KINDS = ("well", "moody", "mended", "cut", "well", "broken", "wrong", "stalled", "well", "moody")


def _told(*models: str) -> str:
    """TOML that says of models that they cannot be held to JSON."""
    return "".join([f'[facts."*/{model}"]\njson_schema = false\n' for model in models])


async def _asked(port: int, surface: Surface, kind: str, *, stream: bool) -> None:
    """One call; of a stream that stalls its client leaves."""
    model = f"{surface.name}/{kind}"
    if kind in ("mended", "wrong"):
        body = {**chat(model, stream=stream), "response_format": _WANTED}
        await ask(port, "POST", "/llm/message", body)
        return
    if kind != "stalled":
        await surface.asked(port, model, stream=stream)
        return
    async with connection(port) as client:
        await client.send("POST", surface.path, msgspec.json.encode({**surface.body, "model": model, "stream": True}))
        await client.head()
        await client.until(b"from")
        client.abort()


async def killed(folder: Path, calls: int, after: int) -> tuple[list[str], dict[str, Any]]:
    """`calls`, of which the server is killed when `after` have been delivered: the models of the delivered ones, and what the
    ledger knows when it has been started again."""
    delivered: list[str] = []
    enough = asyncio.Event()
    async with Upstream(Reply(delay=0.01, usage=Tokens(7, 5))) as upstream:
        async with gateway(folder, provider(upstream)) as served:
            room = asyncio.Semaphore(32)

            async def client(number: int) -> None:
                async with room:
                    try:
                        body = chat(f"up/m{number}", stream=number % 2 == 0)
                        response = await ask(served.port, "POST", "/v1/chat/completions", body)
                    except (OSError, asyncio.IncompleteReadError):
                        return
                if response.status == 200 and response.complete:
                    delivered.append(f"up/m{number}")
                if len(delivered) >= after:
                    enough.set()

            clients = [asyncio.create_task(client(number)) for number in range(calls)]
            await enough.wait()
            await served.kill()
            await asyncio.gather(*clients)
            told = list(delivered)
            await served.start()
            usage = await served.get("/usage?group_by=model")
    return told, usage


class Spending(msgspec.Struct, frozen=True):
    """USD that the answered calls cost by the upstream's account, the budget, and how the calls ended."""

    cost: float
    budget: float
    tally: Tally
    answered: int


async def spending(
    folder: Path, clients: int, covered: int, *, bounded: bool = True, structured: bool = False
) -> Spending:
    """`clients` at once under the budget of a key that covers `covered` of their calls.

    The model writes as much as it is let. Where the calls are not `bounded`, that is forty times as much, until the budget bounds them.
    Where they are `structured` each asks for JSON, and gets it at once, at the second turn, or not at all.
    """
    tokens, most, input_price, output_price = Tokens(20, 100), 4000, 1.0, 10.0
    each = (tokens.input * input_price + tokens.output * output_price) / 1_000_000
    tally = Tally()
    chance = random.Random(4)

    def written(asked: Ask) -> Reply:
        usage = Tokens(tokens.input, asked.body.get("max_tokens", most))
        if structured:
            right = chance.random() < (0.5 if _repairs(asked) else 0.25)
            return Reply(text=_RIGHT if right else _WRONG, delay=0.05, usage=usage)
        return Reply(delay=0.05, usage=usage, finish_reason="length")

    async with Upstream(written) as upstream:
        toml = provider(upstream) + keys("web")
        toml += f'[facts."up/*"]\ninput_price = {input_price}\noutput_price = {output_price}\nmax_output = {most}\n'
        toml += "json_schema = false\n" if structured else ""
        toml += f'[budgets]\nassumed_output = {tokens.output}\n[budgets.keys."web"]\nday = {each * covered:.9f}\n'
        async with gateway(folder, toml) as served:

            async def client(number: int) -> None:
                bound: dict[str, Any] = {"max_tokens": tokens.output} if bounded else {}
                wanted = {"response_format": _WANTED} if structured else {}
                body = chat(stream=number % 2 == 0, **bound, **wanted)
                tally.take("web", await ask(served.port, "POST", "/v1/chat/completions", body, bearer("web")))

            await asyncio.gather(*[client(number) for number in range(clients)])
        answered = sum(upstream.record.answered.values())
        served = list(upstream.record.served.values())
    spent = sum([one.input * input_price + one.output * output_price for one in served]) / 1_000_000
    return Spending(spent, each * covered, tally, answered)


class Opened(msgspec.Struct, frozen=True):
    """Streams open at once, and what they cost one process: megabytes before and with them, CPU seconds for all."""

    complete: int
    most_at_once: int
    idle: float
    loaded: float
    cpu: float
    seconds: float


async def open_streams(folder: Path, streams: int, pace: float) -> Opened:
    """`streams` that are open together, each with a delta every `pace` seconds."""
    text = " ".join(["word"] * 10)
    complete = 0
    loop = asyncio.get_running_loop()
    async with Upstream(Reply(text=text, pace=pace)) as upstream:
        async with gateway(folder, provider(upstream)) as served:
            await ask(served.port, "POST", "/v1/chat/completions", chat(stream=True))
            idle = process_tree.resident_megabytes(served.pid)
            cpu = process_tree.cpu_nanoseconds(served.pid)
            began = loop.time()
            loaded = idle

            async def client() -> None:
                nonlocal complete
                response = await ask(served.port, "POST", "/v1/chat/completions", chat(stream=True))
                complete += response.complete and response.body.endswith(b"data: [DONE]\n\n")

            async def watch() -> None:
                nonlocal loaded
                while True:
                    await asyncio.sleep(0.5)
                    loaded = max(loaded, process_tree.resident_megabytes(served.pid))

            watching = asyncio.create_task(watch())
            await asyncio.gather(*[client() for _ in range(streams)])
            watching.cancel()
            cpu = process_tree.cpu_nanoseconds(served.pid) - cpu
            return Opened(complete, upstream.record.most_at_once, idle, loaded, cpu / 1e9, loop.time() - began)


class Outage(msgspec.Struct, frozen=True):
    """What became of the calls around an outage of Redis, and whether it was used again afterwards."""

    tally: Tally
    during: int
    """Answers while it was gone."""
    limits: str
    """What `/health` said of limits by the end of that."""
    upstream: Record
    used_again: bool


async def redis_outage(folder: Path, redis: RedisServer, seconds: float, *, frozen: bool) -> Outage:
    """A steady load, of more clients than may be served at once, whose limits are counted in Redis, which is gone for `seconds`: ended, or
    `frozen`."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    async with Upstream(Reply(delay=0.1), limits=Limits(concurrent=20)) as upstream:
        limited = provider(upstream, max_concurrent=20, requests_per_minute=60_000)
        toml = limited + f'[redis]\nurl = "{redis.url}"\n' + keys("web")
        async with gateway(folder, toml) as served:
            over = False

            async def client() -> None:
                while not over:
                    response = await ask(served.port, "POST", "/v1/chat/completions", chat(), bearer("web"))
                    tally.take("web", response)
                    await asyncio.sleep(0.05)

            clients = [asyncio.create_task(client()) for _ in range(40)]
            await asyncio.sleep(1.0)
            (redis.stall if frozen else redis.stop)()
            before = len(tally.order)
            await asyncio.sleep(seconds)
            during = len(tally.order) - before
            limits = (await served.get("/health"))["limits"]
            (redis.go_on if frozen else redis.start)()
            deadline = loop.time() + 20
            used = False
            while not used and loop.time() < deadline:
                await asyncio.sleep(0.25)
                used = await _commands(redis) > 0
            over = True
            await asyncio.gather(*clients)
        return Outage(tally, during, limits, upstream.record, used)


async def two_processes(folder: Path, redis: RedisServer, size: Burst) -> tuple[Tally, Record]:
    """Clients of two processes whose limits are counted in one Redis."""
    tally = Tally()
    folders = [folder / name for name in ("one", "two")]
    for each in folders:
        each.mkdir()
    limits = size.limits
    async with Upstream(Reply(delay=size.takes), limits=limits) as upstream:
        toml = provider(upstream, max_concurrent=limits.concurrent, requests_per_minute=limits.per_minute)
        toml += f'[redis]\nurl = "{redis.url}"\nnodes = 2\n' + keys("web")
        async with gateway(folders[0], toml) as one, gateway(folders[1], toml) as two:

            async def client(number: int) -> None:
                port = (one, two)[number % 2].port
                tally.take("web", await ask(port, "POST", "/v1/chat/completions", chat(), bearer("web")))

            await asyncio.gather(*[client(number) for number in range(size.clients)])
        return tally, upstream.record


async def _commands(redis: RedisServer) -> int:
    """Reservations that the server has counted since it was asked the last time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    try:
        writer.write(b"INFO commandstats\r\n")
        length = int((await reader.readline())[1:])
        told = (await reader.readexactly(length)).decode()
        writer.write(b"CONFIG RESETSTAT\r\n")
        await reader.readline()
        await reader.readline()
    finally:
        writer.close()
    return sum([int(count) for count in re.findall(r"cmdstat_(?:evalsha|fcall|eval):calls=(\d+)", told)])
