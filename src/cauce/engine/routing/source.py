"""A provider as the router knows it."""

import re

import msgspec

from cauce.domain.delta import Level
from cauce.ports.embedder import Embedder
from cauce.ports.provider import ModelInfo, Provider, Timeouts
from cauce.ports.resilience import COMMON, Resilience

MOST_LOCAL_MODELS = 3
"""Models of one local server that `auto` lists: loaded ones first, models for embeddings never."""

_ELSEWHERE = re.compile(r"[:-]cloud$", re.I)
"""Models that a local server only passes on to its maker's machines (Ollama, "Cloud": the tag is `cloud` or ends in `-cloud`)."""


class Deployment(msgspec.Struct, frozen=True):
    """One of several keys or places of a provider. `weight` is its share; `here`: its address is on this machine; `free`: see `Source`."""

    name: str
    provider: Provider
    weight: float = 1.0
    here: bool = False
    embedder: Embedder | None = None
    free: bool = False


class Source(msgspec.Struct, frozen=True):
    """A provider the router knows of.

    `tier` orders `auto` (lower first). `resilience` is what its failures are met with. `local`: found on this machine. `sole`: it has
    one nameless model and is called by its own name alone. `level` is what its answers count as, where that does
    not depend on their place in the cascade.
    """

    provider: Provider
    default_model: str | None = None
    models: tuple[ModelInfo, ...] = ()
    tier: int = 2
    local: bool = False
    sole: bool = False
    level: Level | None = None
    timeouts: Timeouts = Timeouts()
    resilience: Resilience = COMMON
    embedder: Embedder | None = None
    """Who makes embeddings with its models. None: it makes none."""
    completes: bool = False
    """It goes on with a prompt as it is, whatever that is made of."""
    prefills: bool = False
    """Its models go on from a last message of the assistant, unless more is known of one."""
    infills: bool = False
    """It fills in between a prompt and a suffix."""
    vendor: str = ""
    """Whose price list holds for it: see `ports.catalogue.Catalogue`."""
    here: bool = False
    """What it is asked stays on this machine."""
    free: bool = False
    """It runs on this machine or in its network, so what has no price there costs nothing."""
    deployments: tuple[Deployment, ...] = ()
    """Its keys or places, where it has several; `provider` is then that of the first."""

    @property
    def preferred(self) -> str | None:
        """The model its name alone means: the default one, else the first it is known to offer."""
        if self.default_model is not None:
            return self.default_model
        return next(iter(conversational(self.models)), None)

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Everyone who must be let go of in the end."""
        return tuple([deployment.provider for deployment in self.deployments]) or (self.provider,)

    def places(self) -> tuple[Deployment, ...]:
        """Its deployments; itself, without a name, where it has none."""
        here = self.here or self.local or self.level == "offline"
        own = Deployment("", self.provider, here=here, embedder=self.embedder, free=self.free or here)
        return self.deployments or (own,)


def conversational(models: tuple[ModelInfo, ...]) -> list[str]:
    """The models that `auto` may ask, those first that are loaded."""
    usable = [info for info in models if "embed" not in info.id.lower()]
    usable.sort(key=lambda info: not info.loaded)
    return [info.id for info in usable[:MOST_LOCAL_MODELS]]


def passed_on(model: str) -> bool:
    """Whether a server on this machine would only pass `model` on to another."""
    return _ELSEWHERE.search(model) is not None
