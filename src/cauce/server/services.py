"""What a route may call. Bootstrap fills it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from cauce.domain.delta import Level
from cauce.domain.errors import CauceError
from cauce.engine.counting import CountGuards
from cauce.engine.embedding import Embedding
from cauce.engine.estimator import Estimator
from cauce.engine.policies.breaker import Standing
from cauce.engine.policies.concurrency import Crowd
from cauce.engine.routing.explain import Explainer
from cauce.engine.routing.router import Router
from cauce.engine.streams.conversing import Conversing
from cauce.engine.streams.streams import Streams
from cauce.engine.turn import Turn
from cauce.ports.clock import Clock
from cauce.ports.conversations import Conversations
from cauce.ports.ids import Ids
from cauce.ports.ledger import Entry, LedgerStanding
from cauce.ports.responses import Responses
from cauce.ports.tokenizer import Tokenizer
from cauce.ports.usage import Feedback, Usage
from cauce.server.leaving import ModelManner
from cauce.server.settings import Key, ServerSettings, StreamSettings


class Kept(Protocol):
    """Where something is kept."""

    @property
    def store(self) -> str: ...

    @property
    def up(self) -> bool:
        """Whether it answers."""
        ...


class Services(msgspec.Struct, frozen=True):
    """`message_timeout` (seconds) bounds a plain `/llm/message` that names no timeout of its own."""

    settings: ServerSettings
    stream_settings: StreamSettings
    keys: tuple[Key, ...]
    message_timeout: float
    router: Router
    explainer: Explainer
    turn: Turn
    embedding: Embedding
    estimator: Estimator
    count_guards: CountGuards
    tokenizer: Tokenizer | None
    """None without the extra `tokens`."""
    streams: Streams
    responses: Responses
    conversations: Conversations
    conversing: Conversing
    manners: Mapping[str, ModelManner]
    """By public name and alias: of models whose answers are given in a way of their own."""
    clock: Clock
    ids: Ids
    began: float
    """When the process started, on the monotonic clock."""
    last_entry: Callable[[str], Entry | None]
    """The newest ledger entry of a provider."""
    fault: Callable[[str], CauceError | None]
    """What the newest call of a provider failed with by its own fault; None if it did not."""
    ledger: Callable[[], LedgerStanding]
    """How the ledger stands."""
    usage: Usage
    feedback: Feedback
    answers: Mapping[Level, int]
    """How many calls were answered, by level."""
    circuits: Callable[[], list[Standing]]
    """How the circuits of candidates stand that were asked."""
    crowded: Callable[[], list[Crowd]]
    """The candidates that have refused calls lately, as too many."""
    waiting: Callable[[], int]
    """How many calls wait in the queue."""
    limits: Callable[[], str]
    """Who decides on limits now: `shared`, `local share` while the store they share is gone; empty where nothing is shared."""
    stream_log: Callable[[], Kept]
    """Where streams are kept, and whether that answers."""
    exposition: Callable[[], tuple[bytes, str]]
    """The metrics in Prometheus' text format, and its content type."""
    start: Callable[[], Awaitable[None]]
    """Start background work: discovery, sweeping."""
    stop: Callable[[], Awaitable[None]]
    """Stop it and let go of connections."""
