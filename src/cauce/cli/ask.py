"""Ask one question and print the answer as it comes. It needs no running server.

The answer goes to stdout, everything said about it to stderr. Text that is piped in is added after the question, or is the
question if there is none:

  cauce ask "What is Cauce?"
  git diff | cauce ask "Write a commit message for this change"
  cauce ask --json "Name three rivers" | jq -r .response

In a loop that reads its lines from stdin, add </dev/null: what is piped in belongs to the question.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

from cauce.bootstrap import Runtime
from cauce.cli.configuration import configured
from cauce.cli.main import MISUSE, configuration_argument
from cauce.cli.session import IMPATIENT, answer, attempts_in, make_known, provenance, session
from cauce.cli.terminal import INTERRUPTED, complain, dimmed, harmless, note, readable, sendable
from cauce.cli.words import say
from cauce.config import Config
from cauce.domain.delta import Attempt, Delta, Finish, FinishReason, Reasoning, Status, Text
from cauce.domain.errors import CauceError
from cauce.domain.message import Message, Role, TextPart
from cauce.domain.request import Request, Sampling, Scope
from cauce.engine.compose import collect
from cauce.wire.native.answer import Facts, render_answer

FAILED = 1


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("question", nargs="*", help="the question; its words are joined")
    command.add_argument("--model", default="", metavar="NAME", help="public name, alias or provider/model")
    command.add_argument("--system", metavar="TEXT", help="instructions that stand before the question")
    command.add_argument("--json", action="store_true", help="print one JSON object when the answer is complete")
    command.add_argument("--max-tokens", type=_positive, metavar="N", help="longest answer, in tokens")
    command.add_argument("--temperature", type=_temperature, metavar="T", help="0 (steady) to 2 (free)")
    configuration_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Ask, print, and say how it went."""
    config = configured(arguments)
    try:
        question = _question(arguments.question)
        if not question:
            complain(say('there is no question: cauce ask "What is Cauce?", or pipe one in'))
            return MISUSE
        request = Request(
            sendable(arguments.model),
            _messages(arguments.system, question),
            Sampling(arguments.temperature, max_tokens=arguments.max_tokens),
            stream=not arguments.json,
        )
        return asyncio.run(_ask(config, request))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _ask(config: Config, request: Request) -> int:
    async with session(config, IMPATIENT) as running:
        printing = _Printing()
        noticed: list[Status | Attempt] = []
        await make_known(running, request.model)
        try:
            if request.stream:
                async with aclosing(answer(running, request, noticed)) as batches:
                    async for batch in batches:
                        printing.take(batch)
            else:
                print(await _whole(running, request, noticed), flush=True)
        except CauceError as error:
            printing.end()
            complain(error.message)
            return FAILED
        except asyncio.CancelledError:
            printing.end()
            raise
        printing.end()
        attempts = attempts_in(noticed)
        if told := provenance(running, attempts):
            note(told)
        ended = printing.tell()
        # A script must see an outage as one: whoever wants this answer asks for `offline`.
        return FAILED if attempts and attempts[-1].level == "offline" and attempts[-1].reason else ended


async def _whole(running: Runtime, request: Request, noticed: list[Status | Attempt]) -> str:
    """The answer when it is complete, as the JSON that `POST /llm/message` answers with."""
    services = running.services
    request_id = services.ids.new("req")
    call = services.turn.call(request, Scope(), request_id=request_id, streamed=False, notice=noticed.append)
    began = services.clock.monotonic()
    completion = await collect(await services.turn.open(call))
    facts = Facts(request_id, attempts_in(noticed), services.clock.monotonic() - began)
    return render_answer(completion, facts).decode()


class _Printing:
    """An answer on its way to stdout, its reasoning dim on stderr if somebody looks there."""

    def __init__(self) -> None:
        self._cleaned = harmless if sys.stdout.isatty() else str
        self._last = "\n"
        self._thinking = False
        self._finish: Finish | None = None

    def take(self, batch: Sequence[Delta]) -> None:
        """Print what has come."""
        for delta in batch:
            match delta:
                case Text(text) if text:
                    self._stop_thinking()
                    sys.stdout.write(self._cleaned(text))
                    self._last = text[-1]
                case Reasoning(text) if text and sys.stderr.isatty():
                    self._thinking = True
                    print(dimmed(harmless(text), sys.stderr), end="", file=sys.stderr, flush=True)
                case Finish():
                    self._finish = delta
                case _:
                    pass
        sys.stdout.flush()

    def end(self) -> None:
        """Finish the line."""
        self._stop_thinking()
        if self._last != "\n":
            sys.stdout.write("\n")
            self._last = "\n"
        sys.stdout.flush()

    def tell(self) -> int:
        """Say how the answer ended, if it was not as one would think; returns the exit code."""
        finish = self._finish
        if finish is None:
            return 0
        if finish.error is not None:
            complain(finish.error.message)
            return FAILED
        if reason := _shortened(finish.reason):
            note(reason)
        return 0

    def _stop_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            print(file=sys.stderr, flush=True)


def _shortened(reason: FinishReason) -> str:
    match reason:
        case "length":
            return say("the answer was cut short: it reached its longest length (--max-tokens, or the model's own)")
        case "content_filter":
            return say("the answer was cut short by the provider's content filter")
        case _:
            return ""


def _question(words: list[str]) -> str:
    asked = sendable(" ".join(words)).strip()
    piped = "" if sys.stdin is None or sys.stdin.isatty() else readable(sys.stdin.buffer.read()).strip("\n")
    return f"{asked}\n\n{piped}" if asked and piped.strip() else asked or piped.strip()


def _messages(system: str | None, question: str) -> tuple[Message, ...]:
    said: list[tuple[Role, str]] = [("system", sendable(system))] if system else []
    said.append(("user", question))
    return tuple([Message(role, (TextPart(text),)) for role, text in said])


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 2:
        raise argparse.ArgumentTypeError("must be from 0 to 2")
    return number
