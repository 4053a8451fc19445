"""The same client for code that is not async: a loop of its own, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar, Unpack

from msgspec import UNSET, UnsetType

from cauce.client.answer import Answer, Parsed
from cauce.client.client import BASE_URL, Client
from cauce.client.errors import Unreachable
from cauce.client.options import Messages, OnDisconnect, Options
from cauce.client.progress import Progress
from cauce.client.reconnect import Reconnect
from cauce.client.shapes import Adapter
from cauce.client.stream import Stream
from cauce.domain.delta import Delta

T = TypeVar("T")


class SyncClient:
    """See `Client`. It may be used from several threads; `close` it, or use it in a `with`."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout: float | UnsetType | None = UNSET,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._client = Client(base_url, api_key=api_key, timeout=timeout, reconnect=reconnect)
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cauce client", daemon=True)
        self._thread.start()

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. Whoever waits in another thread gets `Unreachable`. Idempotent."""
        with self._closing:
            if self._closed:
                return
            ended = self._begin(self._end())
            self._closed = True
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def message(self, messages: Messages, **options: Unpack[Options]) -> Answer:
        """See `Client.message`."""
        return self._run(self._client.message(messages, **options))

    def stream(
        self,
        messages: Messages,
        *,
        id: str | None = None,
        on_disconnect: OnDisconnect | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        **options: Unpack[Options],
    ) -> "SyncStream":
        """See `Client.stream`. `on_progress` is called in the client's own thread."""
        stream = self._client.stream(messages, id=id, on_disconnect=on_disconnect, on_progress=on_progress, **options)
        return SyncStream(stream, self._run)

    def resume(
        self,
        id: str,
        *,
        after: int = 0,
        epoch: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> "SyncStream":
        """See `Client.resume`."""
        return SyncStream(self._client.resume(id, after=after, epoch=epoch, on_progress=on_progress), self._run)

    def cancel(self, id: str) -> None:
        """See `Client.cancel`."""
        self._run(self._client.cancel(id))

    def parse(self, type: type[T] | Adapter[T], messages: Messages, **options: Unpack[Options]) -> Parsed[T]:
        """See `Client.parse`."""
        return self._run(self._client.parse(type, messages, **options))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._closing:
            future = self._begin(work)
        try:
            return future.result()
        except CancelledError as error:
            raise Unreachable("the client was closed before the answer came") from error
        except BaseException:
            # An interrupt of this thread must not leave the work going on in the other.
            future.cancel()
            raise

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Raises `RuntimeError` where waiting for it would be for ever."""
        if self._closed or threading.current_thread() is self._thread:
            work.close()
            if self._closed:
                raise RuntimeError("the client is closed")
            raise RuntimeError("on_progress is called in the client's own thread: call the client from another one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()


class SyncStream:
    """See `Stream`. `cancel` may be called from another thread than the one that reads."""

    def __init__(self, stream: Stream, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream = stream
        self._run = run

    @property
    def id(self) -> str:
        """The stream's id."""
        return self._stream.id

    @property
    def request_id(self) -> str | None:
        """The id that the log of the server names."""
        return self._stream.request_id

    @property
    def text(self) -> str:
        """See `Stream.text`."""
        return self._stream.text

    @property
    def reasoning(self) -> str:
        """See `Stream.reasoning`."""
        return self._stream.reasoning

    @property
    def partial(self) -> object:
        """See `Stream.partial`."""
        return self._stream.partial

    @property
    def cursor(self) -> int:
        """See `Stream.cursor`."""
        return self._stream.cursor

    @property
    def epoch(self) -> int | None:
        """See `Stream.epoch`."""
        return self._stream.epoch

    @property
    def progress(self) -> Progress:
        """Where the stream stands."""
        return self._stream.progress

    def __iter__(self) -> "SyncStream":
        return self

    def __next__(self) -> Delta:
        delta: Delta | None = self._run(_next(self._stream))
        if delta is None:
            raise StopIteration
        return delta

    def __enter__(self) -> "SyncStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def answer(self) -> Answer:
        """See `Stream.answer`."""
        return self._run(self._stream.answer())

    def cancel(self) -> None:
        """See `Stream.cancel`."""
        self._run(self._stream.cancel())

    def close(self) -> None:
        """See `Stream.aclose`."""
        self._run(self._stream.aclose())


async def _next(stream: Stream) -> Delta | None:
    return await anext(stream, None)
