"""The table of names: sources, routes and aliases, and what a name stands for while they stay as they are."""

import difflib
import re
from collections.abc import Iterable, Mapping

import msgspec

from cauce.domain.errors import InvalidRequest, ModelNotFound
from cauce.domain.model import UNKNOWN, ModelFacts
from cauce.domain.price import FREE
from cauce.engine.routing.route import Route
from cauce.engine.routing.source import Source, conversational, passed_on
from cauce.ports.catalogue import Catalogue
from cauce.ports.provider import Candidate, named

AUTO = "auto"

BUILT_IN_ALIASES: dict[str, str] = {
    "tu-modelo": AUTO,
    "default": AUTO,
    "GEMINI_FLASH": "gemini",
    "GPT_5_MINI": "openai",
    "CLAUDE_HAIKU": "anthropic",
}
"""Names that existing clients send. A provider's name alone means its default model."""

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,512}")
"""What a name may be made of: it goes into headers, addresses and labels of metrics."""

_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
"""What configures the providers that come by themselves."""

_MOST_ALIAS_STEPS = 8
_MOST_KEPT = 1024
"""Names whose meaning is kept: clients may ask for models that only an upstream knows."""


class Option(msgspec.Struct, frozen=True):
    """One deployment of one model: as the first choice, and as a later one. `here`: what it is asked stays on this machine."""

    first: Candidate
    later: Candidate
    here: bool
    weight: float = 1.0

    @property
    def deployment(self) -> str:
        return self.first.deployment


class Group(msgspec.Struct, frozen=True):
    """One entry of a cascade: a model at a provider, with all that provider's deployments. `weight` is its share among entries.

    `tier` is its provider's place in `auto`, the lowest first.
    """

    name: str
    options: tuple[Option, ...]
    weight: float = 1.0
    tier: tuple[int, int] = (0, 0)

    @property
    def here(self) -> bool:
        """Whether all of it is on this machine."""
        return all([option.here for option in self.options])

    @property
    def offline(self) -> bool:
        """Whether it is a last resort that no rule puts first."""
        return self.options[0].first.level == "offline"


class Section(msgspec.Struct, frozen=True):
    """What a name stands for: the entries of a route, or one model. `away` are listed names whose server is not there,
    `unlisted` providers that have no default model and have not told any."""

    name: str
    groups: tuple[Group, ...]
    route: Route
    away: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


class Names:
    """Sources come and go while the server runs (`add`, `remove`). Without a catalogue, no facts are known."""

    def __init__(self, routes: Iterable[Route], aliases: Mapping[str, str], catalogue: Catalogue | None = None) -> None:
        self.routes = {route.name: route for route in routes}
        self.aliases = {**BUILT_IN_ALIASES, **aliases}
        self.by_name: dict[str, Source] = {}
        self._windows: dict[str, dict[str, int]] = {}
        self._catalogue = catalogue
        self._sections: dict[str, Section] = {}

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, in the order of `auto`."""
        return tuple(sorted(self.by_name.values(), key=_auto_order))

    def add(self, source: Source) -> None:
        """Know `source`, in place of an earlier one of that name."""
        self.by_name[source.provider.name] = source
        told = {info.id: info.context_window for info in source.models if info.context_window is not None}
        self._windows[source.provider.name] = told
        self._sections.clear()

    def remove(self, name: str) -> Source | None:
        """Forget the source called `name`."""
        self._windows.pop(name, None)
        self._sections.clear()
        return self.by_name.pop(name, None)

    def facts(self, source: Source, model: str) -> ModelFacts:
        """What is known of a model of `source`, wherever that has it."""
        return _priced(self._facts(source, model), model, free=all([place.free for place in source.places()]))

    def _facts(self, source: Source, model: str) -> ModelFacts:
        if self._catalogue is None or not model:
            return UNKNOWN
        name = source.provider.name
        known = self._catalogue.facts(name, source.vendor, model, self._windows.get(name, {}).get(model))
        if known.prefill is None and source.prefills:
            return msgspec.structs.replace(known, prefill=True)
        return known

    def section(self, asked: str) -> Section:
        """What `asked` stands for now. Raises `InvalidRequest` for a name nothing can have, and `ModelNotFound`, naming the nearest model."""
        found = self._sections.get(asked)
        if found is None:
            if not _NAME.fullmatch(asked):
                what = "model: a name has 1 to 512 characters, none of them a control character"
                raise InvalidRequest(what, field="model")
            found = self._section(asked)
            if len(self._sections) >= _MOST_KEPT:
                self._sections.clear()
            self._sections[asked] = found
        return found

    def known(self) -> tuple[str, ...]:
        """Every name a client may send, but for models only an upstream knows: public names, then `provider/model`."""
        public = [AUTO, *[name for name in self.routes if name != AUTO]]
        return tuple(dict.fromkeys([*public, *self._model_names()]))

    def _section(self, asked: str) -> Section:
        name = asked
        for _ in range(_MOST_ALIAS_STEPS):
            if name in self.routes or name not in self.aliases:
                break
            name = self.aliases[name]
        route = self.routes.get(name)
        if route is not None:
            return self._routed(route)
        if name == AUTO:
            return Section(name, tuple(self._auto()), Route(name, ()), unlisted=tuple(self._unlisted()))
        group = self._one(name)
        if group is None:
            raise ModelNotFound(self._unknown(asked, name), field="model")
        return Section(name, (group,), Route(name, ()))

    def _routed(self, route: Route) -> Section:
        groups: list[Group] = []
        away: list[str] = []
        unlisted: list[str] = []
        entries = route.candidates or (AUTO,)
        for place, entry in enumerate(entries):
            found = self._listed(entry)
            weight = route.weights[place] if route.weights else 1.0
            groups.extend([_of_route(group, route, weight) for group in found])
            if entry == AUTO:
                unlisted += self._unlisted()
            elif not found:
                (unlisted if entry in self.by_name else away).append(entry)
        if not groups:
            listed = ", ".join(entries)
            raise ModelNotFound(f"model {route.name!r} has no candidate that is there now: {listed}", field="model")
        return Section(route.name, tuple(groups), route, tuple(away), tuple(unlisted))

    def _listed(self, name: str) -> list[Group]:
        """Groups of one entry of a route; none if its server is away."""
        if name == AUTO:
            return self._auto()
        group = self._one(name)
        return [group] if group is not None else []

    def _one(self, name: str) -> Group | None:
        provider, slash, model = name.partition("/")
        source = self.by_name.get(provider)
        if source is not None:
            if slash and model and not source.sole:
                return self._group(source, model)
            if not slash and source.sole:
                return self._group(source, "")
            if not slash and (preferred := source.preferred) is not None:
                return self._group(source, preferred)
            return None
        owners = [
            source
            for source in self.by_name.values()
            if name == source.default_model or any(info.id == name for info in source.models)
        ]
        return self._group(owners[0], name) if len(owners) == 1 else None

    def _auto(self) -> list[Group]:
        groups: list[Group] = []
        for source in self.sources:
            if source.sole:
                groups.append(self._group(source, ""))
            elif source.local:
                groups.extend([self._group(source, model) for model in conversational(source.models)])
            elif (preferred := source.preferred) is not None:
                groups.append(self._group(source, preferred))
        return groups

    def _unlisted(self) -> list[str]:
        """Who would be in `auto`, were it known with which model."""
        return [
            source.provider.name
            for source in self.sources
            if source.preferred is None and not (source.sole or source.local)
        ]

    def _group(self, source: Source, model: str) -> Group:
        facts = self._facts(source, model)
        own = source.level
        options: list[Option] = []
        for place in source.places():
            candidate = Candidate(
                place.provider,
                model,
                own or "primary",
                source.timeouts,
                _priced(facts, model, free=place.free),
                deployment=place.name,
                resilience=source.resilience,
                label=named(place.provider.name, model),
                completes=source.completes,
            )
            later = msgspec.structs.replace(candidate, level=own or "fallback")
            options.append(Option(candidate, later, place.here and not passed_on(model), place.weight))
        return Group(options[0].first.name, tuple(options), tier=_auto_order(source))

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
        provider, slash, _ = name.partition("/")
        if not slash and name in self.by_name:
            return f"provider {name!r} has no default_model, and lists no models now: name one as {name}/MODEL"
        cure = "" if provider in self.by_name else _cure(provider, named=bool(slash))
        if asked != name:
            what = f"which is not configured here{': ' if cure else ''}{cure}"
            return f"model {asked!r} stands for {name!r}, {what} (GET /v1/models lists what is)"
        known = [*self.known(), *self.aliases]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(self.known()[:8])}"
        if cure:
            missing = f"no provider {provider!r} is configured here: {cure}"
            hint = f"{missing}; {hint}" if near and provider not in _VARIABLES else missing
        return f"model {name!r} does not exist here; {hint} (GET /v1/models lists them)"


def _cure(provider: str, *, named: bool) -> str:
    """What would make `provider` one; empty where it is none that a name without a slash could mean."""
    variable = _VARIABLES.get(provider)
    if variable is not None:
        return f"set {variable}, or add [providers.{provider}]"
    return f"add [providers.{provider}]" if named else ""


def _priced(facts: ModelFacts, model: str, *, free: bool) -> ModelFacts:
    """`facts` of a model in one place: what runs here costs nothing, unless it was given a price or is asked of its maker after all."""
    if facts.prices is not None or not free or passed_on(model):
        return facts
    return msgspec.structs.replace(facts, prices=FREE)


def _of_route(group: Group, route: Route, weight: float) -> Group:
    """`group` with what `route` says of all its candidates."""
    options = [
        msgspec.structs.replace(option, first=_told(option.first, route), later=_told(option.later, route))
        for option in group.options
    ]
    return Group(group.name, tuple(options), weight, group.tier)


def _told(candidate: Candidate, route: Route) -> Candidate:
    own, timeouts, provider = route.resilience, route.timeouts, candidate.provider.name
    return msgspec.structs.replace(
        candidate,
        timeouts=candidate.timeouts if timeouts is None else timeouts(provider),
        hedge=route.hedge,
        overflow=route.overflow,
        midstream=route.midstream,
        resilience=candidate.resilience if own is None else own(provider),
    )


def _auto_order(source: Source) -> tuple[int, int]:
    """Sources of one tier stay in the order they were configured in."""
    return (2 if source.sole else 1 if source.local else 0), source.tier
