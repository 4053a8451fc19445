"""Talk with a model in the terminal. It needs no running server, and keeps nothing but the lines you typed.

Enter sends, Alt-Enter (or Esc and then Enter) begins a new line. Ctrl-C stops an answer, Ctrl-D leaves. Commands:

  /model NAME     ask another model from now on; without NAME: list them
  /system TEXT    instructions for the model; without TEXT: none
  /clear          forget the conversation
  /help           show this
  /exit           leave

When input or output is a pipe, each line is a question and answers come as plain text.
"""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from cauce.bootstrap import Runtime
from cauce.cli.configuration import configured
from cauce.cli.conversation import Conversation, Ended, Front, Reply
from cauce.cli.main import configuration_argument
from cauce.cli.pipe import Pipe
from cauce.cli.screen import Screen
from cauce.cli.session import IMPATIENT, answer, attempts_in, make_known, provenance, session
from cauce.cli.terminal import INTERRUPTED, complain, sendable
from cauce.cli.words import say
from cauce.config import Config
from cauce.domain.delta import Delta
from cauce.domain.errors import CauceError, ModelNotFound
from cauce.domain.request import Request
from cauce.domain.usage import Usage
from cauce.wire.native.answer import attempt_name

FAILED = 1
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
_MOST_NAMES = 40


def configure(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("--model", default="", metavar="NAME", help="public name, alias or provider/model")
    command.add_argument("--system", default="", metavar="TEXT", help="instructions for the model")
    configuration_argument(command)


def run(arguments: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    config = configured(arguments)
    conversation = Conversation(sendable(arguments.model), sendable(arguments.system))
    try:
        return asyncio.run(_talk(config, conversation))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _talk(config: Config, conversation: Conversation) -> int:
    at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    front: Front = Screen(config.data_dir / "chat_history") if at_terminal else Pipe()
    async with session(config, IMPATIENT) as running:
        await make_known(running, conversation.model)
        return await _Talk(running, conversation, front).go_on()


class _Talk:
    """Turns and commands, until the user leaves."""

    def __init__(self, running: Runtime, conversation: Conversation, front: Front) -> None:
        self._running = running
        self._conversation = conversation
        self._front = front
        self._told = ""

    async def go_on(self) -> int:
        """Returns the exit code: over a pipe, an answer that failed counts."""
        front = self._front
        try:
            asked = self._asked()
        except ModelNotFound as error:
            complain(error.message)
            return FAILED
        if front.interactive:
            front.aside(say("talking with {model}; /help shows what else there is", model=asked))
        failed = False
        while (typed := await front.read()) is not None:
            said = sendable(typed).strip()
            command = _COMMAND.fullmatch(said)
            if command is None:
                failed = (said != "" and not await self._turn(said)) or failed
            elif command[1] in ("exit", "quit"):
                break
            else:
                await self._obey(command[1], (command[2] or "").strip())
        return FAILED if failed and not front.interactive else 0

    async def _turn(self, question: str) -> bool:
        """Ask `question` and show the answer; whether there was one."""
        front, reply = self._front, Reply()
        clock = self._running.services.clock
        began = clock.monotonic()
        with front.answering(reply) as came:
            ended = await _interruptible(self._listen(self._conversation.request(question), reply, came))
        self._conversation.add(question, reply.text, ended)
        if ended == "completed":
            self._tell(reply, clock.monotonic() - began)
        elif ended == "cancelled":
            front.aside(say("stopped; the answer above is incomplete") if reply.text else say("stopped"))
        else:
            front.complain(reply.failure)
            if reply.text:
                front.aside(say("the answer above is incomplete"))
        return ended != "failed"

    async def _listen(self, request: Request, reply: Reply, came: Callable[[Sequence[Delta]], None]) -> Ended:
        try:
            async with aclosing(answer(self._running, request, reply.noticed)) as batches:
                async for batch in batches:
                    reply.take(batch)
                    came(batch)
        except CauceError as error:
            reply.error = error
        return "failed" if reply.failure else "completed"

    def _tell(self, reply: Reply, seconds: float) -> None:
        """Say who answered and what it took; why it was not the first choice, when that is news."""
        attempts = attempts_in(reply.noticed)
        told = provenance(self._running, attempts)
        if told and told != self._told:
            self._front.aside(told)
        self._told = told
        assert reply.finish is not None
        last = attempts[-1]
        self._front.aside(" · ".join([attempt_name(last), last.level, _tokens(reply.finish.usage), f"{seconds:.1f} s"]))

    async def _obey(self, command: str, text: str) -> None:
        front, conversation = self._front, self._conversation
        match command:
            case "help":
                front.show(_help())
            case "model" if text:
                await self._choose(text)
            case "model":
                names = self._running.router.names()
                more = [f"… {len(names) - _MOST_NAMES}"] if len(names) > _MOST_NAMES else []
                front.show("\n".join([*names[:_MOST_NAMES], *more]))
                self._tell_model()
            case "system":
                conversation.system = text
                front.aside(say("the instructions hold from now on") if text else say("no instructions from now on"))
            case "clear":
                conversation.clear()
                front.aside(say("the conversation is forgotten"))
            case _:
                front.complain(say("there is no command /{command}; /help lists them", command=command))

    async def _choose(self, name: str) -> None:
        before, self._conversation.model = self._conversation.model, name
        await make_known(self._running, name)
        if not self._tell_model():
            self._conversation.model = before

    def _tell_model(self) -> bool:
        try:
            self._front.aside(say("talking with {model}", model=self._asked()))
        except ModelNotFound as error:
            self._front.complain(error.message)
            return False
        return True

    def _asked(self) -> str:
        """The model that is asked, and who is asked first for it. Raises `ModelNotFound`."""
        router = self._running.router
        name = self._conversation.model or router.default
        first = router.candidates(Request(name, ()))[0].name
        return name if name == first else f"{name} ({first})"


async def _interruptible(work: Coroutine[Any, Any, Ended]) -> Ended:
    """Do `work`, which Ctrl-C cancels and nothing else with it."""
    loop = asyncio.get_running_loop()
    handler = signal.getsignal(signal.SIGINT)
    task = loop.create_task(work)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, handler)
    return "cancelled" if task.cancelled() else task.result()


def _tokens(usage: Usage) -> str:
    about = "≈ " if usage.estimated else ""
    return say("{about}{given} + {made} tokens", about=about, given=usage.input_tokens, made=usage.output_tokens)


def _help() -> str:
    return "\n".join(
        [
            say("/model NAME     ask another model from now on; without NAME: list them"),
            say("/system TEXT    instructions for the model; without TEXT: none"),
            say("/clear          forget the conversation"),
            say("/exit           leave (also Ctrl-D)"),
            say("Enter sends, Alt-Enter or Esc Enter begins a new line, Ctrl-C stops an answer"),
        ]
    )
