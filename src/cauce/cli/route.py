"""Explain where a request would go, and why. Nobody is asked, and nothing is sent.

  cauce route explain                          the default model
  cauce route explain smart --task translation --tokens 6000
  cauce route explain --file request.json      a request as POST /llm/message takes it; "-" reads it from stdin

It shows the rules that fired, the candidates in the order they would be asked in, and who is left out. How models do at the moment is
known to a running server alone: POST /admin/route/explain answers the same there.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cauce.cli.configuration import configured
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.session import PATIENT, make_known, session
from cauce.cli.terminal import complain, line
from cauce.cli.words import say
from cauce.config import Config
from cauce.domain.errors import CauceError
from cauce.domain.request import Request
from cauce.engine.routing.explain import Absent, Explanation, Place, Told
from cauce.wire.native.request import parse_request

REFUSED = 1
"""Exit code where nobody would be asked."""


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser("explain", help="explain where a request would go")
    explain.add_argument(
        "model", nargs="?", default="", metavar="MODEL", help="model to ask (default: that of the file)"
    )
    explain.add_argument("--task", help="what the request is for")
    explain.add_argument("--file", type=Path, metavar="FILE", help="the request, as JSON; - for stdin")
    explain.add_argument("--tokens", type=_tokens, metavar="N", help="length to take for that of the prompt")
    explain.add_argument("--private", action="store_true", help="as if it had to stay on this machine")
    explain.add_argument("--json", action="store_true", help="print JSON, for programs")
    configuration_argument(explain)


def run(arguments: argparse.Namespace) -> int:
    """Explain it."""
    config = configured(arguments)
    try:
        request = _request(arguments)
        explanation = asyncio.run(_explained(config, request, arguments.tokens))
    except OSError as error:
        complain(say("{file} cannot be read: {reason}", file=arguments.file, reason=error.strerror))
        return MISUSE
    except CauceError as error:
        complain(error.message)
        return REFUSED
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(explanation)).decode())
    else:
        for sentence in _told(explanation):
            print(sentence)
    return 0 if explanation.candidates else REFUSED


def _tokens(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _request(arguments: argparse.Namespace) -> Request:
    """The request that `arguments` describe. Raises `InvalidRequest`, `OSError`."""
    request = Request(arguments.model, ())
    if arguments.file is not None:
        body = sys.stdin.buffer.read() if str(arguments.file) == "-" else arguments.file.read_bytes()
        request = parse_request(body)
    return msgspec.structs.replace(
        request,
        model=arguments.model or request.model,
        task=arguments.task or request.task,
        privacy="local" if arguments.private else request.privacy,
    )


async def _explained(config: Config, request: Request, tokens: int | None) -> Explanation:
    async with session(config, PATIENT) as running:
        await make_known(running, request.model or running.router.default)
        return running.services.explainer.explain(request, tokens)


def _told(explanation: Explanation) -> Iterator[str]:
    yield _head(explanation)
    length = say(
        "about {tokens:,} tokens, complexity {complexity:g}",
        tokens=explanation.tokens,
        complexity=explanation.complexity,
    )
    yield f"  {length}"
    for rule in explanation.rules:
        yield f"  {line(_rule(rule))}"
    for number, place in enumerate(explanation.candidates, 1):
        yield f"{number:>3}. {line(_name(place.name, place.deployment))}: {line(', '.join(_remarks(place)))}"
    if not explanation.candidates:
        yield f"  {say('nobody is asked: the request is refused')}"
    for absent in explanation.left_out:
        yield f"  -  {line(_name(absent.name, absent.deployment))}: {line(_absence(absent))}"


def _head(explanation: Explanation) -> str:
    asked, model = line(explanation.asked), line(explanation.model)
    if asked != model:
        asked = f"{asked} ({model})"
    return say("{model}, order {order}:", model=asked, order=explanation.route)


def _name(name: str, deployment: str) -> str:
    return f"{name} [{deployment}]" if deployment else name


def _rule(told: Told) -> str:
    value, bound = told.value, told.bound
    first = {"local": say("this machine"), "cloud": say("the cloud")}.get(told.first, told.first)
    match told.rule:
        case "privacy":
            return say("nothing leaves this machine: models elsewhere and stores that servers share are left out")
        case "task":
            return say("task {task}: {first} first", task=value, first=first)
        case "long":
            return say("{bound:g} tokens or more: {first} first", bound=bound, first=first)
        case "complex":
            return say("complexity of {bound:g} or more: {first} first", bound=bound, first=first)
        case "short":
            return say("{bound:g} tokens or fewer: {first} first", bound=bound, first=first)
        case _:
            return say("no other rule holds: {first} first", first=first)


def _remarks(place: Place) -> Iterator[str]:
    """Why it stands there, and what is known of it."""
    yield _why(place)
    yield say("on this machine") if place.local else say("elsewhere")
    if place.price:
        yield say("about {price:.2g} USD", price=place.price)
    if place.window is not None:
        yield say("window {tokens} tokens", tokens=place.window)
    if place.fits is False:
        yield say("the request may be too long for it")
    if place.latency is not None:
        yield say("{seconds:.2g} s to its first words", seconds=place.latency)
    if place.resting:
        yield say("left alone for {seconds:.2g} s, since it failed", seconds=place.resting)


def _why(place: Place) -> str:
    match place.why:
        case "listed":
            return say("as listed")
        case "tier":
            return say("by tier ({tier})", tier=place.tier)
        case "rule":
            return say("put first by the rule")
        case "behind":
            return say("behind what the rule puts first")
        case "balanced":
            return say("by weight, chance and load (another request may be drawn otherwise)")
        case "cheapest":
            return say("by price")
        case "fastest":
            return say("by the time to its first words")
        case "best_rated":
            return say("by what people think of its answers")
        case "deployment":
            return say("another deployment of the same model")
        case "asked":
            return say("named by the request as a fallback")
        case "resort":
            return say("the last resort")


def _absence(absent: Absent) -> str:
    match absent.reason:
        case "away":
            return say("its server is not there now")
        case "unlisted":
            return say("its models could not be listed, so it is not asked until they are")
        case "privacy":
            return say("it is not on this machine")
        case "prompt":
            return say("it cannot go on with such a prompt")
        case "window":
            return say(
                "about {tokens:,} tokens are too many for its window of {window:,}",
                tokens=absent.tokens,
                window=absent.window,
            )
        case "after":
            return say("nobody else is asked when the request is too long")
