"""`GET /v1/models` and `GET /v1/models/{id}`: every name a client may send."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cauce.domain.errors import NotFound
from cauce.engine.router import Router
from cauce.server.services import Services


class ModelBody(msgspec.Struct):
    """One model, as OpenAI's API lists it. `owned_by` is the provider, or `cauce` for public names."""

    id: str
    owned_by: str
    object: str = "model"
    created: int = 0


class ModelsBody(msgspec.Struct):
    """The list of models."""

    data: list[ModelBody]
    object: str = "list"


async def list_models(request: Request) -> Response:
    """All of them."""
    router = _services(request).router
    body = ModelsBody([_body(router, name) for name in router.names()])
    return Response(msgspec.json.encode(body), media_type="application/json")


async def one_model(request: Request) -> Response:
    """One of them. Aliases are found too."""
    router = _services(request).router
    name = request.path_params["model"]
    if name not in router.names() and name not in router.aliases():
        raise NotFound(f"model {name!r} does not exist here (GET /v1/models lists them)")
    return Response(msgspec.json.encode(_body(router, name)), media_type="application/json")


def _body(router: Router, name: str) -> ModelBody:
    provider = name.partition("/")[0]
    known = any(source.provider.name == provider for source in router.sources)
    return ModelBody(name, provider if known else "cauce")


def _services(request: Request) -> Services:
    return request.app.state.services
