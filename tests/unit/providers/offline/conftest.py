"""One library for all tests: it never changes."""

from collections.abc import Callable, Iterator

import pytest

from cauce.domain.message import Message, TextPart
from cauce.providers.offline.answer import Library
from cauce.providers.offline.pages import packaged_pages

Ask = Callable[..., str]


def conversation(*texts: str) -> tuple[Message, ...]:
    """`texts` of user and assistant by turns, the user first."""
    return tuple([Message("assistant" if place % 2 else "user", (TextPart(text),)) for place, text in enumerate(texts)])


@pytest.fixture(scope="session")
def library() -> Iterator[Library]:
    library = Library(packaged_pages())
    yield library
    library.close()


@pytest.fixture
def ask(library: Library) -> Ask:
    """Answers the last of the texts it is given."""

    def asked(*texts: str) -> str:
        return "".join(library.answer(conversation(*texts)))

    return asked
