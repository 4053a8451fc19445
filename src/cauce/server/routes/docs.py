"""`/`, `/docs` and `/openapi.json`. The page is one file of ours: nothing on it comes from elsewhere."""

from functools import cache
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cauce.server import openapi

_POLICY = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
}


async def home(_: Request) -> Response:
    """The way in: the documentation."""
    return RedirectResponse("/docs", 307)


async def page(_: Request) -> Response:
    """The API, readable."""
    return Response(_page(), media_type="text/html; charset=utf-8", headers=_POLICY)


async def document(_: Request) -> Response:
    """The API, for programs."""
    return Response(_document(), media_type="application/json")


@cache
def _page() -> bytes:
    return files("cauce").joinpath("web/docs.html").read_bytes()


@cache
def _document() -> bytes:
    return msgspec.json.encode(openapi.document())
