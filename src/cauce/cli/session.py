"""What commands that work in their own process share: the runtime while they need it, one answer as it comes.

There is no server and no lock here, and nothing is kept.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise

import msgspec

from cauce.bootstrap import Runtime, runtime
from cauce.cli.words import say
from cauce.config import Config
from cauce.domain.delta import Attempt, Delta, Status
from cauce.domain.errors import CauceError, ModelNotFound
from cauce.domain.request import Request, Scope
from cauce.engine.routing.source import Source
from cauce.ports.provider import ModelInfo
from cauce.wire.native.answer import attempt_name

IMPATIENT = 1.0
"""Seconds that a question waits for local servers to be found."""

PATIENT = 5.0
"""Seconds that a list of what is there waits for them."""


@contextlib.asynccontextmanager
async def session(config: Config, patience: float) -> AsyncGenerator[Runtime, None]:
    """What `config` describes, running; local servers have been looked for, for at most `patience` seconds."""
    built = runtime(config)
    await built.services.start()
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(built.first_scan.wait(), patience)
        yield built
    finally:
        await built.services.stop()


async def answer(
    running: Runtime, request: Request, noticed: list[Status | Attempt]
) -> AsyncGenerator[Sequence[Delta], None]:
    """The answer to `request`, batch by batch; what is going on before it comes is added to `noticed`. Raises `CauceError`.

    Closing it closes the upstream.
    """
    services = running.services
    request_id = services.ids.new("req")
    call = services.turn.call(request, Scope(), request_id=request_id, streamed=True, notice=noticed.append)
    async with aclosing(await services.turn.open(call)) as deltas:
        while batch := await deltas.read():
            yield batch


def upstreams(running: Runtime) -> list[Source]:
    """The configured providers that are asked over the network."""
    return [source for source in running.router.sources if not source.local and not source.sole]


async def offered(source: Source) -> tuple[ModelInfo, ...] | CauceError:
    """The models `source` offers now, or why it did not tell."""
    try:
        return await source.provider.models()
    except CauceError as error:
        return error


async def learn(running: Runtime) -> dict[str, CauceError]:
    """Ask every configured provider for its models, so that the router knows them; why some did not tell, by provider."""
    sources = upstreams(running)
    failures: dict[str, CauceError] = {}
    for source, models in zip(sources, await asyncio.gather(*map(offered, sources)), strict=True):
        if isinstance(models, CauceError):
            failures[source.provider.name] = models
        else:
            running.router.add(msgspec.structs.replace(source, models=models))
    return failures


async def make_known(running: Runtime, model: str) -> None:
    """See to it that `model` is found if any provider offers it, whose list of models may not have come yet."""
    try:
        found = running.router.candidates(Request(model, ()))
    except ModelNotFound:
        await learn(running)
    else:
        nameless = any([source.preferred is None for source in upstreams(running)])
        if nameless and all([candidate.level == "offline" for candidate in found]):
            await learn(running)


def attempts_in(noticed: Sequence[Status | Attempt]) -> list[Attempt]:
    """Who was asked, in order."""
    return [delta for delta in noticed if isinstance(delta, Attempt)]


def provenance(running: Runtime, attempts: Sequence[Attempt]) -> str:
    """Who answered and why it was not the first choice, as one line; empty if it was."""
    if not attempts or attempts[-1].level in ("primary", "cache"):
        return ""
    last = attempts[-1]
    reasons = [
        say("{model} failed: {reason}", model=attempt_name(asked), reason=follower.reason)
        for asked, follower in pairwise(attempts)
        if follower.reason is not None
    ]
    if last.level != "offline":
        told = say("answered by {model}", model=attempt_name(last))
    else:
        told = say("answered by offline, from Cauce's own documentation")
        if not reasons and all([source.sole for source in running.router.sources]):
            reasons = [say("no model is configured; `cauce config init` shows how to connect one")]
    return "; ".join([told, *reasons])
