"""A conversation in a terminal: an editable prompt with history, and answers as Markdown that grows while it comes."""

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from cauce.cli.conversation import Reply
from cauce.cli.terminal import harmless, line
from cauce.cli.words import say
from cauce.domain.delta import Attempt, Delta
from cauce.wire.native.answer import attempt_name

REFRESHES = 8
"""Times a second that a growing answer is drawn again."""

_REASONING = 600
"""Characters of reasoning that are shown while there is no answer yet."""


class Screen:
    """See `conversation.Front`. What was typed is kept in `history`, readable by its owner only."""

    interactive = True

    def __init__(self, history: Path) -> None:
        self._console = Console(highlight=False)
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation="· ",
        )

    async def read(self) -> str | None:
        while True:
            try:
                return await self._session.prompt_async("› ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    def show(self, text: str) -> None:
        self._console.print(Text(harmless(text)))

    def aside(self, text: str) -> None:
        self._console.print(Text(line(text), style="dim"))

    def complain(self, text: str) -> None:
        self._console.print(Text(line(text), style="red"))

    @contextlib.contextmanager
    def answering(self, reply: Reply) -> Generator[Callable[[Sequence[Delta]], None]]:
        self._console.print()
        try:
            with Live(
                _Growing(reply),
                console=self._console,
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stderr=False,
            ):
                yield _drawn_by_itself
        finally:
            # The growing answer is wiped and the whole one printed, so that it is in the terminal's history exactly once.
            if reply.text:
                self._console.print(_markdown(reply.text))
                self._console.print()


class _Growing:
    """The end of an answer that is coming, as much as fits: a live display that is taller than the screen cannot be wiped."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content(), options.update(height=None), pad=False)
        for one in lines[-max(1, console.size.height - 2) :]:
            yield from one
            yield Segment.line()

    def _content(self) -> RenderableType:
        reply = self._reply
        if text := reply.text:
            return _markdown(text)
        if reasoning := reply.reasoning:
            return Text(harmless(reasoning[-_REASONING:]).strip(), style="dim italic")
        self._spinner.update(text=Text(_doing(reply), style="dim"))
        return self._spinner


def _doing(reply: Reply) -> str:
    last = reply.noticed[-1] if reply.noticed else None
    if last is None:
        return ""
    if isinstance(last, Attempt):
        return say("asking {model}", model=line(attempt_name(last)))
    return line(last.detail or last.kind)


def _markdown(text: str) -> Markdown:
    # Links show where they lead: what a model calls its link proves nothing.
    return Markdown(harmless(text), hyperlinks=False)


def _drawn_by_itself(_: Sequence[Delta]) -> None:
    return None


def _keys() -> KeyBindings:
    """Enter sends; Esc and then Enter, which is also what Alt-Enter sends, begins a new line."""
    keys = KeyBindings()

    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    keys.add("enter")(send)
    keys.add("escape", "enter")(break_line)
    return keys


def _history(file: Path) -> History:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
        file.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(file)
