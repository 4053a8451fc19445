"""The client that is not async, where its own thread could be waited for in vain."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cauce.client import SyncClient, Unreachable
from cauce.client.progress import Progress

NOWHERE = "http://127.0.0.1:1"
SECONDS = 10


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_what_waits_for_the_client_is_refused_in_its_own_thread_and_does_not_hang() -> None:
    calls: list[Callable[[], object]] = []

    def stop(_: Progress) -> None:
        for call in calls:
            call()

    with SyncClient(NOWHERE) as client:
        stream = client.stream("Hi", on_progress=stop)
        calls.append(stream.cancel)
        with pytest.raises(RuntimeError, match="on_progress"):
            next(stream)


def test_closed_client_says_that_it_is_closed() -> None:
    client = SyncClient(NOWHERE)
    stream = client.stream("Hi")
    client.close()
    client.close()
    for call in (lambda: client.message("Hi"), lambda: next(stream), stream.cancel, stream.close):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_thread_that_waits_for_a_client_that_is_closed_is_told(silent: str) -> None:
    asked, told = threading.Event(), list[BaseException]()

    def read(client: SyncClient) -> None:
        try:
            client.stream("Hi", on_progress=lambda _: asked.set()).answer()
        except Unreachable as error:
            told.append(error)

    client = SyncClient(silent)
    reader = threading.Thread(target=read, args=(client,), daemon=True)
    reader.start()
    assert asked.wait(SECONDS)
    client.close()
    reader.join(SECONDS)
    assert not reader.is_alive() and "closed" in str(told[0])
