"""`POST /v1/embeddings`: texts to vectors, in OpenAI's form."""

from cauce.server.exchange import Exchange
from cauce.server.relay import embed
from cauce.server.services import Services
from cauce.wire.openai_embeddings import parse_request, render_answer


async def embeddings(exchange: Exchange, services: Services) -> None:
    """Answer with one vector per input."""
    asked = parse_request(await exchange.body(services.settings.max_body))
    made, headers = await embed(exchange, services, asked.request)
    await exchange.respond_json(200, render_answer(made, asked.request.model, as_base64=asked.base64), *headers)
