"""A table of names to try rules on: two models of this machine, two of the cloud, and the offline answerer."""

from cauce.domain.message import Message, TextPart
from cauce.domain.model import ModelFacts
from cauce.domain.price import Prices, Rates
from cauce.domain.request import Request, Sampling
from cauce.engine.health import Health
from cauce.engine.routing import Route, Router, Source
from cauce.engine.routing.conditions import Conditions
from cauce.engine.routing.source import Deployment
from cauce.ports.chance import Chance
from cauce.ports.provider import ModelInfo
from cauce.testing.chance import FakeChance
from cauce.testing.clock import FakeClock
from cauce.testing.scripted import ScriptedProvider, answering


def source(name: str, **settings: object) -> Source:
    return Source(ScriptedProvider(name, answering("x")), **settings)  # pyright: ignore[reportArgumentType]


def deployment(provider: str, name: str, **settings: object) -> Deployment:
    return Deployment(name, ScriptedProvider(provider, answering("x")), **settings)  # pyright: ignore[reportArgumentType]


OFFLINE = source("offline", sole=True, level="offline")
CLOUD = source("cloud", default_model="big", tier=1)
OTHER = source("other", default_model="small", tier=2)
OLLAMA = source("ollama", local=True, models=(ModelInfo("qwen"), ModelInfo("gpt-oss:120b-cloud")))
HERE = source("here", default_model="gguf", here=True, tier=4)
ALL = (OFFLINE, CLOUD, OTHER, OLLAMA, HERE)
LISTED = ("cloud/big", "ollama/qwen", "other/small", "here/gguf", "offline")


class Prized:
    """A catalogue of prices: USD per million tokens, in and out alike."""

    def __init__(self, **prices: float) -> None:
        self._prices = prices

    def facts(self, provider: str, vendor: str, model: str, window: int | None = None) -> ModelFacts:
        price = self._prices.get(provider)
        return ModelFacts(window, prices=None if price is None else Prices(Rates.given(price, price)))


class Table:
    """A router with a clock and chance of its own."""

    def __init__(
        self,
        *routes: Route,
        sources: tuple[Source, ...] = ALL,
        chance: Chance | None = None,
        prices: dict[str, float] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock)
        self.conditions = Conditions(self.clock, chance or FakeChance(0.0), self.health)
        catalogue = None if prices is None else Prized(**prices)
        self.router = Router(routes, aliases or {}, "auto", catalogue, self.conditions)
        for one in sources:
            self.router.add(one)

    def names(self, request: Request) -> list[str]:
        return [candidate.name for candidate in self.router.candidates(request)]

    def deployments(self, request: Request) -> list[str]:
        return [candidate.deployment for candidate in self.router.candidates(request)]


def asking(model: str, *texts: str, max_tokens: int | None = None, **fields: object) -> Request:
    """A request for `model`; `texts` are the turns of the user."""
    messages = tuple([Message("user", (TextPart(text),)) for text in texts or ("hi",)])
    return Request(model, messages, Sampling(max_tokens=max_tokens), **fields)  # pyright: ignore[reportArgumentType]
