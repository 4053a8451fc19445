"""Having what was asked and answered gone for good: streams, kept responses, conversations, and what people wrote to answers.

What it cost stays in the ledger, under the name of whoever asked. Kept responses and comments are each server's own.
"""

import msgspec

from cauce.domain.request import Scope
from cauce.domain.stream import Whose
from cauce.engine.streams.streams import Erasure
from cauce.server.logged_responses import PREFIX
from cauce.server.services import Services


class Receipt(msgspec.Struct):
    """What an erasure came to: how many streams are `deleted`, and of all how many were open and are `cancelled`, how many are `pending`
    since they have not ended yet, and how many kept responses, conversations and comments are deleted."""

    deleted: int
    cancelled: int
    pending: int
    responses: int
    conversations: int
    comments: int


async def erase_streams(services: Services, scope: Scope, whose: Whose) -> Erasure:
    """Erase these, and see to it that no response is made of them any more. Raises `Overloaded`: then it is to be asked again."""
    erasure = await services.streams.erase(whose)
    for key in (*erasure.deleted, *erasure.open):
        if key.id.startswith(PREFIX):
            # One that is being copied just now finds that it was deleted.
            await services.responses.promise(key, services.clock.now())
            await services.responses.delete(scope, key.id)
    return erasure


async def erase_all(services: Services, scope: Scope) -> Receipt:
    """Erase all that the key of `scope` has asked, for its user alone if there is one. Raises as `erase_streams`."""
    # Before their streams, with which they would go uncounted; and once more for what was settled meanwhile.
    await services.conversing.caught_up()
    responses = await services.responses.erase(scope.principal, scope.user)
    erasure = await erase_streams(services, scope, Whose(scope.principal, scope.user))
    responses += await services.responses.erase(scope.principal, scope.user)
    # What has just ended may be on its way there.
    await services.conversing.caught_up()
    conversations = await services.conversations.erase(scope, scope.user)
    comments = await services.feedback.erase_comments(scope)
    return Receipt(len(erasure.deleted), erasure.cancelled, len(erasure.open), responses, conversations, comments)
