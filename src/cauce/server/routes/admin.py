"""`POST /admin/route/explain`: where a request would go, and why. Nobody is asked."""

import msgspec

from cauce.domain.errors import InvalidRequest
from cauce.server.exchange import Exchange
from cauce.server.services import Services
from cauce.server.wishes import wished
from cauce.wire.native.request import parse_request

_encode = msgspec.json.Encoder().encode


async def explain(exchange: Exchange, services: Services) -> None:
    """Explain the way of a request, whose body is that of `/llm/message`. The query's `tokens` is to be taken for its length."""
    given = exchange.query("tokens")
    if given is not None and not (given.isascii() and given.isdigit() and len(given) < 10):
        raise InvalidRequest("tokens: must be a whole number", field="tokens")
    request = wished(exchange, parse_request(await exchange.body(services.settings.max_body)))
    explanation = services.explainer.explain(request, None if given is None else int(given))
    await exchange.respond_json(200, _encode(explanation))
