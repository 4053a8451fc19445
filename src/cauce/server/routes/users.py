"""`DELETE /users/{user}` and `DELETE /users?all=true`: what somebody asked, or all that the caller's key did, is erased."""

import msgspec

from cauce.domain.errors import InvalidRequest, NotFound
from cauce.domain.request import Scope
from cauce.server.erasing import erase_all
from cauce.server.errors import not_allowed
from cauce.server.exchange import Exchange
from cauce.server.services import Services

PATH = "/users"


async def route(exchange: Exchange, services: Services) -> None:
    """`PATH`, and everything below it."""
    _, slash, name = exchange.path.removeprefix(PATH).partition("/")
    if not slash and exchange.path != PATH:
        raise NotFound(f"there is no {exchange.path} here: /docs lists what there is")
    if exchange.method != "DELETE":
        raise not_allowed(exchange, "DELETE")
    if slash and not name:
        raise InvalidRequest("user: name whose streams are to be erased, as requests name them in `user`", field="user")
    if not slash and exchange.query("all") != "true":
        raise InvalidRequest("all: say ?all=true to erase all that your key has asked, for every user", field="all")
    scope = exchange.scope
    user = scope.known_as(name) if slash else None
    receipt = await erase_all(services, Scope(scope.tenant, scope.key, user))
    await exchange.respond_json(200, msgspec.json.encode(receipt))
