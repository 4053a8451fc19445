"""`GET /v1/models` and `GET /v1/models/{id}`: every name a client may send.

Clients that name a version of Anthropic's API are answered in its shape, clients of Google's in Google's, all others in OpenAI's.
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cauce.domain.errors import NotFound
from cauce.engine.routing.router import Router
from cauce.server.routes import gemini
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
    if _for_anthropic(request):
        return Response(msgspec.json.encode(_anthropic_list(router.names())), media_type="application/json")
    if _for_google(request):
        return Response(msgspec.json.encode(gemini.models(router.names())), media_type="application/json")
    body = ModelsBody([_body(router, name) for name in router.names()])
    return Response(msgspec.json.encode(body), media_type="application/json")


async def one_model(request: Request) -> Response:
    """One of them. Aliases are found too."""
    router = _services(request).router
    name = request.path_params["model"]
    if name not in router.names() and name not in router.aliases():
        raise NotFound(f"model {name!r} does not exist here (GET /v1/models lists them)")
    if _for_google(request):
        return Response(msgspec.json.encode(gemini.model(name)), media_type="application/json")
    body = _anthropic(name) if _for_anthropic(request) else _body(router, name)
    return Response(msgspec.json.encode(body), media_type="application/json")


def _body(router: Router, name: str) -> ModelBody:
    provider = name.partition("/")[0]
    known = any(source.provider.name == provider for source in router.sources)
    return ModelBody(name, provider if known else "cauce")


def _for_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _for_google(request: Request) -> bool:
    return "x-goog-api-key" in request.headers or "x-goog-api-client" in request.headers


def _anthropic_list(names: tuple[str, ...]) -> dict[str, Any]:
    """The list as Anthropic's API has it: one page with everything on it."""
    ends = {"first_id": names[0], "last_id": names[-1]}
    return {"data": [_anthropic(name) for name in names], "has_more": False, **ends}


def _anthropic(name: str) -> dict[str, Any]:
    dates = {"created_at": "1970-01-01T00:00:00Z", "deprecated_at": None, "retires_at": None}
    return {"type": "model", "id": name, "display_name": name, "lifecycle": "active", **dates}


def _services(request: Request) -> Services:
    return request.app.state.services
