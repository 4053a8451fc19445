"""The ASGI application: every request passes the gate; hot routes are plain ASGI, the rest is Starlette's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from cauce.domain.errors import CauceError, InvalidRequest, NotFound
from cauce.engine.streams.streams import leaving, shut_down
from cauce.server.errors import not_allowed, respond_error, unexpected
from cauce.server.exchange import ASGIScope, ClientGone, Exchange, Receive, Send
from cauce.server.gate import Gate
from cauce.server.keyed import KEY
from cauce.server.routes import (
    admin,
    conversations,
    docs,
    gemini,
    health,
    models,
    responses,
    streams,
    ui_chat,
    usage,
    users,
)
from cauce.server.routes.chat_completions import chat_completions
from cauce.server.routes.completions import completions
from cauce.server.routes.embeddings import embeddings
from cauce.server.routes.message import message
from cauce.server.routes.messages import count, messages
from cauce.server.services import Services

Handler = Callable[[Exchange, Services], Awaitable[None]]

HOT: dict[tuple[str, str], Handler] = {
    ("POST", "/llm/message"): message,
    ("POST", "/v1/chat/completions"): chat_completions,
    ("POST", "/v1/completions"): completions,
    ("POST", "/v1/embeddings"): embeddings,
    ("POST", "/v1/responses"): responses.responses,
    ("POST", "/v1/responses/input_tokens"): responses.count,
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): count,
    ("POST", "/usage/estimate"): usage.estimate,
    ("POST", "/admin/route/explain"): admin.explain,
    ("POST", "/feedback"): usage.feedback,
    ("POST", ui_chat.PATH): ui_chat.chat,
}

BELOW: tuple[tuple[str, str, Handler], ...] = (
    ("", streams.PREFIX, streams.route),
    ("", conversations.PATH, conversations.route),
    ("", responses.PREFIX, responses.route),
    ("", ui_chat.PREFIX, ui_chat.route),
    *[("POST", prefix, gemini.act) for prefix in gemini.PREFIXES],
    ("", gemini.LISTING, gemini.listing),
    ("", users.PATH, users.route),
)
"""Handlers of everything below a path, by method (empty: any) and prefix. The first that fits is called."""

COLD: tuple[Route, ...] = (
    Route("/", docs.home),
    Route("/docs", docs.page),
    Route("/openapi.json", docs.document),
    Route("/health", health.health),
    Route("/health/live", health.live),
    Route("/health/ready", health.ready),
    Route("/metrics", health.metrics),
    Route("/usage", usage.usage),
    Route("/usage/forecast", usage.forecast),
    Route("/v1/models", models.list_models),
    Route("/v1/models/{model:path}", models.one_model),
)
"""What is left to Starlette."""

BEGINS: frozenset[Handler] = frozenset(
    {message, chat_completions, completions, embeddings, responses.responses, messages, ui_chat.chat, gemini.act}
)
"""What is refused while the server shuts down: all else is about what is there. `/chat/stream` knows by itself what is new."""

PUBLIC = frozenset({"/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"})
"""Paths that need no key."""

logger = logging.getLogger("cauce.server")


def _below(exchange: Exchange) -> Handler | None:
    for method, prefix, handler in BELOW:
        if exchange.path.startswith(prefix) and method in ("", exchange.method):
            return handler
    return None


def _may_be_old(exchange: Exchange) -> bool:
    """Whether it may ask for an answer that there is: the log knows. Counting begins nothing."""
    return KEY in exchange.request_headers or exchange.path.endswith(":countTokens")


class Application:
    """The app for any ASGI server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gate = Gate(services.settings, services.keys)
        self._hot_paths = {path for _, path in HOT}
        # A bare router: no middleware, and errors are raised for us to answer in one place.
        self._cold = Router(COLD, redirect_slashes=False)
        self.state = State({"services": services})

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        services = self._services
        exchange = Exchange(scope, receive, send, services.clock, services.ids.new("req"))
        try:
            self._gate.check(exchange)
            exchange.check_path()
            if exchange.method == "OPTIONS":
                await exchange.respond(204, b"", b"text/plain")
                return
            if exchange.path not in PUBLIC or exchange.query("probe") is not None:
                exchange.scope = self._gate.authorize(exchange)
            handler = HOT.get((exchange.method, exchange.path)) or _below(exchange)
            if services.streams.draining:
                exchange.headers.append((b"connection", b"close"))
                if handler in BEGINS and not _may_be_old(exchange):
                    raise leaving()
            if handler is not None:
                await handler(exchange, services)
            elif exchange.path in self._hot_paths:
                raise not_allowed(exchange, "POST")
            else:
                await self._rest(exchange, receive, send)
        except ClientGone:
            logger.debug("%s: the client left", exchange.request_id)
        except CauceError as error:
            await self._fail(exchange, error)
        except RecursionError:
            # What was read at one depth of our own calls may be too deep to write at another.
            await self._fail(
                exchange, InvalidRequest("the body is nested too deeply: a few hundred levels are the most")
            )
        except asyncio.CancelledError:
            # The server has waited for this answer as long as it may.
            if not services.streams.draining:
                raise
            await self._fail(exchange, shut_down())
        except Exception:
            logger.exception("%s: unexpected error on %s %s", exchange.request_id, exchange.method, exchange.path)
            await self._fail(exchange, unexpected())

    async def _fail(self, exchange: Exchange, error: CauceError) -> None:
        if exchange.started:
            await exchange.abort()
        else:
            await respond_error(exchange, error)

    async def _rest(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Starlette's routes, with our headers on their answers and their errors in our shape."""

        async def dressed(event: Any) -> None:
            if event["type"] == "http.response.start":
                exchange.started = True
                event["headers"] = [*event.get("headers", ()), *exchange.headers]
            await send(event)

        exchange.asgi["app"] = self
        exchange.asgi["state"] = {"scope": exchange.scope}
        try:
            await self._cold(exchange.asgi, receive, dressed)
        except HTTPException as refused:
            if refused.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                raise not_allowed(exchange, (refused.headers or {}).get("Allow", "GET")) from refused
            if refused.status_code == HTTPStatus.NOT_FOUND:
                raise NotFound(f"there is no {exchange.path} here: /docs lists what there is") from refused
            raise InvalidRequest(refused.detail) from refused

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self._services.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._services.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return
