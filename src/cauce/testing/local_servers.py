"""Fakes of the model servers that people run on their machines: real HTTP servers on free loopback ports.

    async with local_server("ollama", models=("llama3.2:3b", "qwen3:8b"), loaded=("qwen3:8b",)) as server:
        ... look for it at server.port, or ask server.base_url ...
        server.requests                      # "GET /api/tags", ... in the order they came

Each answers what its kind answers where it is told from others and where it lists models, and chat completions, plain and
streamed, with a text that names the model. `KINDS` are the kinds.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec

Pages = dict[str, Any]
"""What is answered to a GET of each path: bytes as they are, anything else as JSON."""


class Shelf(msgspec.Struct, frozen=True):
    """The models a server has. `window` is their context window, in tokens."""

    models: Sequence[str]
    loaded: Sequence[str]
    window: int


class LocalServer:
    """A running fake. `pages` can be changed while it runs; a page that is None is never answered."""

    def __init__(self, kind: str, shelf: Shelf, pages: Pages) -> None:
        self.kind = kind
        self.shelf = shelf
        self.pages = pages
        self.port = 0
        self.requests: list[str] = []
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """What an OpenAI client is configured with."""
        return f"http://127.0.0.1:{self.port}/v1"

    def text(self, model: str) -> str:
        """What `model` says to everything."""
        return f"This is {model} on {self.kind}."

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests of one connection until it closes."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def close_connections(self) -> None:
        """Cut off whoever is connected."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in head[1:]]}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        method, path, _ = head[0].split(" ")
        self.requests.append(f"{method} {path}")
        if method == "POST" and path == "/v1/chat/completions":
            self._chat(writer, msgspec.json.decode(body))
        elif method != "GET" or path not in self.pages:
            _write(writer, 404, _error(f"there is no {method} {path} here", None))
        elif self.pages[path] is None:
            await asyncio.Event().wait()
        else:
            page = self.pages[path]
            _write(writer, 200, page if isinstance(page, bytes) else msgspec.json.encode(page))
        return fields.get("connection", "").lower() != "close"

    def _chat(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        model = request["model"]
        if model not in self.shelf.models:
            _write(writer, 404, _error(f"model {model!r} not found", "model_not_found"))
            return
        words = self.text(model).split(" ")
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        frame = {"id": "chatcmpl-local", "created": 1_700_000_000, "model": model}
        if not request.get("stream"):
            message = {"role": "assistant", "content": self.text(model)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            plain = {**frame, "object": "chat.completion", "choices": [choice], "usage": usage}
            _write(writer, 200, msgspec.json.encode(plain))
            return
        deltas = [{"role": "assistant", "content": words[0]}, *[{"content": " " + word} for word in words[1:]]]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        frame["object"] = "chat.completion.chunk"
        chunks: list[dict[str, Any]] = [{**frame, "choices": [choice]} for choice in choices]
        options: dict[str, Any] = request.get("stream_options") or {}
        if options.get("include_usage"):
            chunks.append({**frame, "choices": [], "usage": usage})
        events = [b"data: " + payload + b"\n\n" for payload in [*map(msgspec.json.encode, chunks), b"[DONE]"]]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")


@contextlib.asynccontextmanager
async def local_server(
    kind: str,
    models: Sequence[str] = ("llama3.2:3b",),
    loaded: Sequence[str] = (),
    *,
    pages: Mapping[str, Any] | None = None,
    at: tuple[str, int] = ("127.0.0.1", 0),
) -> AsyncGenerator[LocalServer, None]:
    """A running server of `kind` (one of `KINDS`) with these models, closed at the end of the block.

    `pages` takes the place of what the kind answers to a GET of a path; `at` is the host and port it listens on (0: a free one).
    """
    shelf = Shelf(models, loaded, 8192)
    server = LocalServer(kind, shelf, {**KINDS[kind](shelf), **(pages or {})})
    listener = await asyncio.start_server(server.serve, *at)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.close_connections()
        await listener.wait_closed()


def _write(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} Local\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _error(message: str, code: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "invalid_request_error", "code": code}})


def _openai_list(shelf: Shelf, owner: str, **more: Any) -> dict[str, Any]:
    entries = [{"id": model, "object": "model", "created": 1, "owned_by": owner, **more} for model in shelf.models]
    return {"object": "list", "data": entries}


def _foundry(shelf: Shelf) -> Pages:
    status = {"modelCachePath": "/models", "endpoints": ["http://127.0.0.1"], "pipeName": None}
    return {"/status": status, "/v1/models": _openai_list(shelf, "Microsoft"), "/models/loaded": shelf.loaded}


def _foundry_v1(shelf: Shelf) -> Pages:
    status = {"modelDirPath": "/models", "endpoints": ["http://127.0.0.1"], "isAutoRegistrationResolved": True}
    return {"/openai/status": status, "/openai/models": shelf.models, "/openai/loadedmodels": shelf.loaded}


def _ollama(shelf: Shelf) -> Pages:
    return {
        "/": b"Ollama is running",
        "/api/version": {"version": "0.12.6"},
        "/api/tags": {"models": [{"name": model, "model": model, "size": 1} for model in shelf.models]},
        "/api/ps": {"models": [{"name": model, "context_length": shelf.window} for model in shelf.loaded]},
        "/v1/models": _openai_list(shelf, "library"),
    }


def _lmstudio(shelf: Shelf) -> Pages:
    def entry(model: str) -> dict[str, Any]:
        instances = [{"id": model, "config": {"context_length": shelf.window // 2}}] if model in shelf.loaded else []
        return {"type": "llm", "key": model, "loaded_instances": instances, "max_context_length": shelf.window}

    return {
        "/api/v1/models": {"models": [entry(model) for model in shelf.models]},
        "/v1/models": _openai_list(shelf, "organization_owner"),
    }


def _lmstudio_v0(shelf: Shelf) -> Pages:
    def entry(model: str) -> dict[str, Any]:
        state = "loaded" if model in shelf.loaded else "not-loaded"
        return {"id": model, "object": "model", "state": state, "max_context_length": shelf.window}

    return {
        # It answers paths it does not know with 200 and an error.
        "/api/v1/models": {"error": "Unexpected endpoint or method. (GET /api/v1/models)"},
        "/api/v0/models": {"object": "list", "data": [entry(model) for model in shelf.models]},
        "/v1/models": _openai_list(shelf, "organization_owner"),
    }


def _llamacpp(shelf: Shelf) -> Pages:
    properties = {"default_generation_settings": {"n_ctx": shelf.window}, "total_slots": 1}
    return {"/health": {"status": "ok"}, "/props": properties, "/v1/models": _openai_list(shelf, "llamacpp", meta=None)}


def _vllm(shelf: Shelf) -> Pages:
    listed = _openai_list(shelf, "vllm", root="/models", parent=None, max_model_len=shelf.window)
    return {"/version": {"version": "0.11.0"}, "/v1/models": listed}


KINDS: dict[str, Callable[[Shelf], Pages]] = {
    "foundry": _foundry,
    "foundry-v1": _foundry_v1,
    "ollama": _ollama,
    "lmstudio": _lmstudio,
    "lmstudio-v0": _lmstudio_v0,
    "llamacpp": _llamacpp,
    "vllm": _vllm,
    "openai-compatible": lambda shelf: {"/v1/models": _openai_list(shelf, "someone")},
}
"""What each kind of server answers: https://learn.microsoft.com/azure/foundry-local/reference/reference-rest,
https://github.com/ollama/ollama/blob/main/docs/api.md, https://lmstudio.ai/docs/developer/rest,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, https://docs.vllm.ai."""
