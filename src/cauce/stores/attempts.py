"""An attempt as stores keep it: one flat tuple, which is what the spool holds and what rows and sums are made of.

Appending members to its end is compatible with spools that are there already; anything else is a new version of them.
"""

from cauce.domain.delta import Level, Outcome
from cauce.domain.errors import ErrorCode
from cauce.domain.request import LONGEST_USER
from cauce.domain.usage import CostSource
from cauce.ports.ledger import Entry

LONGEST = LONGEST_USER
"""Characters of a conversation's name: clients choose them too."""

Attempt = tuple[
    str,  # tenant
    str,  # provider
    str,  # model
    str,  # deployment
    str,  # endpoint
    str,  # key
    Level,
    Outcome,
    CostSource,
    bool,  # estimated
    ErrorCode | None,
    str | None,  # user
    float,  # at, UNIX seconds
    str,  # request id
    str,  # stream id
    str,  # conversation id
    int,  # n
    int,  # input tokens
    int,  # output tokens
    int,  # cached tokens
    int,  # cache write tokens
    int,  # long cache write tokens
    int,  # reasoning tokens
    float,  # cost, USD
    float | None,  # listed cost, USD
    str,  # price snapshot
    float,  # latency, seconds
    float | None,  # first delta, seconds
    float,  # waited, seconds
]


def attempt_of(entry: Entry) -> Attempt:
    """`entry`, flat. What only the provider's wire knows of its usage is left out."""
    scope, usage = entry.scope, entry.usage
    user, conversation = scope.user, entry.conversation_id
    if user is not None and len(user) > LONGEST_USER:
        user = user[:LONGEST_USER]
    if len(conversation) > LONGEST:
        conversation = conversation[:LONGEST]
    return (
        scope.tenant,
        entry.provider,
        entry.model,
        entry.deployment,
        entry.endpoint,
        scope.key,
        entry.level,
        entry.outcome,
        usage.cost_source,
        usage.estimated,
        entry.error_code,
        user,
        entry.at,
        entry.request_id,
        entry.stream_id,
        conversation,
        entry.n,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.long_cache_write_tokens,
        usage.reasoning_tokens,
        usage.cost,
        entry.listed_cost,
        entry.price_snapshot,
        entry.latency,
        entry.first_delta,
        entry.waited,
    )
