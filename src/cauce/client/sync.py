"""The same client for code that is not async: a loop of its own, in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar, Unpack

from cauce.client.answer import Answer, Parsed
from cauce.client.client import BASE_URL, Client
from cauce.client.options import Messages, Options
from cauce.client.shapes import Adapter
from cauce.domain.delta import Delta

T = TypeVar("T")


class SyncClient:
    """See `Client`. It may be used from several threads; `close` it, or use it in a `with`."""

    def __init__(self, base_url: str = BASE_URL, *, api_key: str | None = None, timeout: float | None = 600.0) -> None:
        self._client = Client(base_url, api_key=api_key, timeout=timeout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cauce client", daemon=True)
        self._thread.start()

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def message(self, messages: Messages, **options: Unpack[Options]) -> Answer:
        """See `Client.message`."""
        return self._run(self._client.message(messages, **options))

    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta, None, None]:
        """See `Client.stream`. Close it to stop the model before the end."""
        deltas = self._client.stream(messages, **options)
        try:
            while (delta := self._run(_next(deltas))) is not None:
                yield delta
        finally:
            self._run(deltas.aclose())

    def parse(self, type: type[T] | Adapter[T], messages: Messages, **options: Unpack[Options]) -> Parsed[T]:
        """See `Client.parse`."""
        return self._run(self._client.parse(type, messages, **options))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # An interrupt of this thread must not leave the work going on in the other.
            future.cancel()
            raise


async def _next(deltas: AsyncGenerator[Delta, None]) -> Delta | None:
    return await anext(deltas, None)
