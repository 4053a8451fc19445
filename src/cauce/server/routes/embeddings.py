"""`POST /v1/embeddings`: texts to vectors, in OpenAI's form."""

from cauce.domain.delta import Attempt, Status
from cauce.server.exchange import Exchange
from cauce.server.provenance import provenance
from cauce.server.services import Services
from cauce.wire.openai_embeddings import parse_request, render_answer


async def embeddings(exchange: Exchange, services: Services) -> None:
    """Answer with one vector per input."""
    asked = parse_request(await exchange.body(services.settings.max_body))
    request = asked.request
    attempts: list[Attempt] = []

    def notice(delta: Status | Attempt) -> None:
        if isinstance(delta, Attempt):
            attempts.append(delta)

    began = services.clock.monotonic()
    work = services.embedding.embed(request, exchange.scope, exchange.request_id, notice)
    made, _ = await exchange.while_connected(work)
    headers = provenance(attempts, services.ids.new("emb"), began - exchange.began)
    await exchange.respond_json(200, render_answer(made, request.model, as_base64=asked.base64), *headers)
