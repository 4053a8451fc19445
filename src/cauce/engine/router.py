"""From the model name a client sent to the ordered candidates that may answer it."""

import difflib
import re
from collections.abc import Iterable, Mapping

import msgspec

from cauce.domain.delta import Level
from cauce.domain.errors import InvalidRequest, ModelNotFound, Unsupported
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.request import Prompt, Request
from cauce.ports.catalogue import Catalogue
from cauce.ports.embedder import Embedder
from cauce.ports.provider import Candidate, ModelInfo, Provider, Timeouts

AUTO = "auto"

BUILT_IN_ALIASES: dict[str, str] = {
    "tu-modelo": AUTO,
    "default": AUTO,
    "GEMINI_FLASH": "gemini",
    "GPT_5_MINI": "openai",
    "CLAUDE_HAIKU": "anthropic",
}
"""Names that existing clients send. A provider's name alone means its default model."""

MOST_LOCAL_MODELS = 3
"""Models of one local server that `auto` lists: loaded ones first, models for embeddings never."""

_MOST_ALIAS_STEPS = 8

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,512}")
"""What a name may be made of: it goes into headers, addresses and labels of metrics."""


class Route(msgspec.Struct, frozen=True):
    """A public model name: an ordered cascade of candidate names. `timeouts` (None: the provider's own) holds for all of them."""

    name: str
    candidates: tuple[str, ...]
    timeouts: Timeouts | None = None


class Source(msgspec.Struct, frozen=True):
    """A provider the router knows of.

    `tier` orders `auto` (lower first). `local`: found on this machine. `sole`: it has one nameless model and is called by
    its own name alone. `level` is what its answers count as, where that does not depend on their place in the cascade.
    """

    provider: Provider
    default_model: str | None = None
    models: tuple[ModelInfo, ...] = ()
    tier: int = 2
    local: bool = False
    sole: bool = False
    level: Level | None = None
    timeouts: Timeouts = Timeouts()
    embedder: Embedder | None = None
    """Who makes embeddings with its models. None: it makes none."""
    completes: bool = False
    """It goes on with a prompt as it is, whatever that is made of."""
    infills: bool = False
    """It fills in between a prompt and a suffix."""
    vendor: str = ""
    """Whose price list holds for it: see `ports.catalogue.Catalogue`."""

    @property
    def preferred(self) -> str | None:
        """The model its name alone means: the default one, else the first it is known to offer."""
        if self.default_model is not None:
            return self.default_model
        return next(iter(_conversational(self.models)), None)


class Router:
    """The table of names. Sources come and go while the server runs (`add`, `remove`). Without a catalogue, no facts are known."""

    def __init__(
        self, routes: Iterable[Route], aliases: Mapping[str, str], default: str, catalogue: Catalogue | None = None
    ) -> None:
        self._routes = {route.name: route for route in routes}
        self._aliases = {**BUILT_IN_ALIASES, **aliases}
        self._sources: dict[str, Source] = {}
        self._windows: dict[str, dict[str, int]] = {}
        self._catalogue = catalogue
        self.default = default
        """The model that answers requests which name none."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, in the order of `auto`."""
        return tuple(sorted(self._sources.values(), key=_auto_order))

    def add(self, source: Source) -> None:
        """Know `source`, in place of an earlier one of that name."""
        self._sources[source.provider.name] = source
        told = {info.id: info.context_window for info in source.models if info.context_window is not None}
        self._windows[source.provider.name] = told

    def source(self, name: str) -> Source | None:
        """The source called `name`."""
        return self._sources.get(name)

    def remove(self, name: str) -> Source | None:
        """Forget the source called `name`."""
        self._windows.pop(name, None)
        return self._sources.pop(name, None)

    def facts(self, source: Source, model: str) -> ModelFacts:
        """What is known of a model of `source`."""
        if self._catalogue is None or not model:
            return UNKNOWN
        name = source.provider.name
        return self._catalogue.facts(name, source.vendor, model, self._windows.get(name, {}).get(model))

    def candidates(self, request: Request) -> tuple[Candidate, ...]:
        """Where `request` may go, best first.

        Raises `InvalidRequest` for a name nothing can have, `ModelNotFound`, naming the nearest model, and `Unsupported` for a prompt that none of them can go on with.
        """
        names = (request.model or self.default, *request.fallbacks)
        if not all([_NAME.fullmatch(name) for name in names]):
            what = "model: a name has 1 to 512 characters, none of them a control character"
            raise InvalidRequest(what, field="model")
        found: list[Candidate] = []
        seen: set[str] = set()
        for name in names:
            for candidate in self._resolve(name):
                if candidate.name not in seen:
                    seen.add(candidate.name)
                    found.append(candidate)
        if request.prompt is not None:
            found = self._able(found, request.prompt)
        if len(found) == 1:
            return (self._leveled(found[0], 0),)
        return tuple([self._leveled(candidate, place) for place, candidate in enumerate(found)])

    def _able(self, candidates: list[Candidate], prompt: Prompt) -> list[Candidate]:
        """Those of `candidates` that can go on with `prompt`: any model with a text, as a message; few with more than that."""
        if prompt.suffix is not None:
            able = [one for one in candidates if self._sources[one.provider.name].infills]
            what, field = "fills in between a prompt and a suffix", "suffix"
        elif not prompt.text:
            able = [one for one in candidates if self._sources[one.provider.name].completes]
            what, field = (
                "takes prompts as they are (no text, tokens, best_of, or log probabilities with echo)",
                "prompt",
            )
        else:
            return candidates
        if not able:
            names = ", ".join([one.name for one in candidates])
            raise Unsupported(f"{field}: no server of {names} {what}: name a model whose server does", field=field)
        return able

    def names(self) -> tuple[str, ...]:
        """Every name a client may send, but for models only an upstream knows: public names, then `provider/model`."""
        public = [AUTO, *[name for name in self._routes if name != AUTO]]
        return tuple(dict.fromkeys([*public, *self._model_names()]))

    def aliases(self) -> Mapping[str, str]:
        """Names that stand for other names."""
        return self._aliases

    def _resolve(self, asked: str) -> list[Candidate]:
        name = asked
        for _ in range(_MOST_ALIAS_STEPS):
            if name in self._routes or name not in self._aliases:
                break
            name = self._aliases[name]
        route = self._routes.get(name)
        if route is not None:
            candidates = [candidate for entry in route.candidates for candidate in self._listed(entry)]
            if not candidates:
                raise ModelNotFound(f"model {name!r} has no candidate that is there now: {', '.join(route.candidates)}")
            if route.timeouts is None:
                return candidates
            return [msgspec.structs.replace(candidate, timeouts=route.timeouts) for candidate in candidates]
        if name == AUTO:
            return self._auto()
        candidate = self._one(name)
        if candidate is None:
            raise ModelNotFound(self._unknown(asked, name), field="model")
        return [candidate]

    def _listed(self, name: str) -> list[Candidate]:
        """Candidates of one entry of a route; none if its server is away."""
        if name == AUTO:
            return self._auto()
        candidate = self._one(name)
        return [candidate] if candidate is not None else []

    def _one(self, name: str) -> Candidate | None:
        provider, slash, model = name.partition("/")
        source = self._sources.get(provider)
        if source is not None:
            if slash and model and not source.sole:
                return self._candidate(source, model)
            if not slash and source.sole:
                return self._candidate(source, "")
            if not slash and (preferred := source.preferred) is not None:
                return self._candidate(source, preferred)
            return None
        owners = [
            source
            for source in self._sources.values()
            if name == source.default_model or any(info.id == name for info in source.models)
        ]
        return self._candidate(owners[0], name) if len(owners) == 1 else None

    def _auto(self) -> list[Candidate]:
        candidates: list[Candidate] = []
        for source in self.sources:
            if source.sole:
                candidates.append(self._candidate(source, ""))
            elif source.local:
                candidates.extend([self._candidate(source, model) for model in _conversational(source.models)])
            elif (preferred := source.preferred) is not None:
                candidates.append(self._candidate(source, preferred))
        return candidates

    def _candidate(self, source: Source, model: str) -> Candidate:
        facts = self.facts(source, model)
        return Candidate(source.provider, model, source.level or "primary", source.timeouts, facts)

    def _leveled(self, candidate: Candidate, place: int) -> Candidate:
        own = self._sources[candidate.provider.name].level
        level: Level = own if own is not None else "primary" if place == 0 else "fallback"
        return msgspec.structs.replace(candidate, level=level) if level != candidate.level else candidate

    def _model_names(self) -> list[str]:
        names: list[str] = []
        for source in self.sources:
            provider = source.provider.name
            if source.sole:
                names.append(provider)
            if source.default_model is not None:
                names.append(f"{provider}/{source.default_model}")
            names.extend([f"{provider}/{info.id}" for info in source.models])
        return names

    def _unknown(self, asked: str, name: str) -> str:
        if asked != name:
            return f"model {asked!r} stands for {name!r}, which is not configured here (GET /v1/models lists what is)"
        known = [*self.names(), *self._aliases]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(self.names()[:8])}"
        return f"model {name!r} does not exist here; {hint} (GET /v1/models lists them)"


def _auto_order(source: Source) -> tuple[int, int]:
    """Sources of one tier stay in the order they were configured in."""
    return (2 if source.sole else 1 if source.local else 0), source.tier


def _conversational(models: tuple[ModelInfo, ...]) -> list[str]:
    usable = [info for info in models if "embed" not in info.id.lower()]
    usable.sort(key=lambda info: not info.loaded)
    return [info.id for info in usable[:MOST_LOCAL_MODELS]]
