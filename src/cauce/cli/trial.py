"""What of a user's configuration a run of chaos tries: what is in force, what stands in its place and why, and what cannot be judged."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cauce.cli.words import say
from cauce.config import Config, ModelSettings, ProviderSettings
from cauce.domain.stream import StreamLimits
from cauce.testing.chaos import NodeSettings, Route, shortest
from cauce.testing.chaos.node import Store, goes_by_leases

SECONDS = 20
"""How long a run is, where no lease asks for more."""

_LONGEST = 600
"""Seconds up to which a run is made longer for the sake of a lease."""

_OFTEN = 10
"""What is waited for again and again may take this part of the run each time."""

_UNTRIED = ("hedge", "buffer", "timeouts", "retry", "breaker", "recovery")
"""What a route may say that no stream of a run has."""

_OWN = ("retry", "breaker", "recovery")
"""What a provider may say, too."""


class Trial(msgspec.Struct, frozen=True):
    """What a run takes from `config`. `nodes` and `seconds` are as asked for; None: as the configuration has it, as long as that needs."""

    config: Config
    store: Store
    nodes: int | None = None
    seconds: int | None = None

    @property
    def servers(self) -> int:
        """How many there are: several where several of the user's may share the store, unless asked for."""
        if self.store == "memory":
            return 1
        shared = self.store in ("postgres", "redis") or bool(self._given.streams.folder)
        return self.nodes or (2 if shared else 1)

    @property
    def lasts(self) -> int:
        """Seconds that it takes, about."""
        return self.seconds or max(SECONDS, min(_LONGEST, round(self._needed)))

    @property
    def settings(self) -> NodeSettings:
        """What its nodes are configured with: the user's settings, but for what would be waited for longer than the run can see."""
        given, ours = self._given, NodeSettings()
        often = self.lasts / _OFTEN
        waits = {
            name: min(getattr(given.timeouts, name), max(getattr(ours.timeouts, name), often))
            for name in ("connect", "first_delta", "idle")
        }
        timeouts = msgspec.structs.replace(given.timeouts, **waits)
        return msgspec.structs.replace(given, timeouts=timeouts, drain=min(given.drain, max(ours.drain, often / 2)))

    @property
    def notes(self) -> list[str]:
        """All that is to be said of it, in sentences."""
        given, used, usual = self._given.facts(), self.settings.facts(), _of(Config(), self.store).facts()
        kept = [
            f"{name} = {_value(value)}"
            for name, value in given.items()
            if value != usual.get(name) and used.get(name) == value
        ]
        notes = [say("in force, as you have them: {settings}", settings=", ".join(kept))] if kept else []
        notes.append(
            say("in force, as they are by default: the rest of [streams], [recovery], [retry], [queue], [cache]")
        )
        return [*notes, *self._overridden(given, used), *self._promised(), *self._unjudged()]

    @property
    def _given(self) -> NodeSettings:
        return _of(self.config, self.store)

    @property
    def _needed(self) -> float:
        return shortest(self.store, self.servers, self.config.streams.lease)

    def _overridden(self, given: dict[str, Any], used: dict[str, Any]) -> Iterator[str]:
        """What stands in place of the user's."""
        config = self.config
        if self.store != config.streams.store:
            yield say(
                "[streams] store = {used}, not {given}: --store says so",
                used=_value(self.store),
                given=_value(config.streams.store),
            )
        if self.store == "sqlite" and config.streams.folder:
            key = "[streams] folder"
            yield say("{key} is one of the run's own: your streams are left alone", key=key)
        elif self.store == "sqlite" and self.servers > 1:
            yield say("[streams] folder is set, though you have none: {nodes} servers share it", nodes=self.servers)
        if self.store in ("postgres", "redis"):
            key = {"postgres": "[postgres] schema", "redis": "[redis] prefix"}[self.store]
            yield say("{key} is one of the run's own: your streams are left alone", key=key)
        if self.store == "memory" and (self.nodes or 1) > 1:
            yield say("one server, not {nodes}: in memory each has streams of its own", nodes=self.nodes)
        other = {
            name: f"{name} = {_value(value)} ({_value(given[name])})"
            for name, value in used.items()
            if value != given[name]
        }
        if drain := other.pop("[server] drain", ""):
            yield say(
                "in place of yours: {setting}: a server that is stopped is to leave streams to the next", setting=drain
            )
        if other:
            waits = ", ".join(other.values())
            yield say(
                "in place of yours: {settings}: the provider falls silent, and is waited for each time", settings=waits
            )
        if config.breaker.enabled:
            yield say("[breaker] enabled = false: the provider fails on purpose, and would be left alone")
        if config.limits.models or config.limits.keys or config.budgets.any:
            yield say("[limits] and [budgets] are left out: they are of your models and keys, and no run asks those")

    def _promised(self) -> Iterator[str]:
        """What the user's settings do not promise, so that it is no violation."""
        settings = self.settings
        attempts, ways = settings.recovery.attempts, {route.midstream for route in settings.routes}
        if not attempts:
            yield say("[recovery] attempts = 0: an answer that breaks may end there, and has to say so")
        elif attempts < NodeSettings().recovery.attempts:
            yield say("[recovery] attempts = {attempts}: an answer may break off after as many", attempts=attempts)
        ages = {"[recovery] age": settings.recovery.age, "[timeouts] logged": settings.timeouts.logged}
        if short := [f"{name} = {seconds:g}" for name, seconds in ages.items() if seconds < self.lasts]:
            yield say("{settings}: an answer that lasts for longer may break off", settings=", ".join(short))
        most = settings.streams.limits
        if most != StreamLimits():
            yield say(
                "[streams] max_stream = {bytes}, max_records = {records}: a longer answer has to end there",
                bytes=most.bytes,
                records=most.records,
            )
        if "fail" in ways:
            yield say('midstream = "fail": an answer that breaks has to end there, and to say so')
        if "resume" in ways:
            yield say('midstream = "resume": an answer may break off where no model goes on exactly')
        if any([route.leaves for route in settings.routes]):
            yield say("on_disconnect: an answer that nobody reads may end as cancelled")
        if self.store == "memory":
            yield say('store = "memory": streams may go with their server, and must not come back as others')

    def _unjudged(self) -> Iterator[str]:
        """What a run cannot tell of the user's settings."""
        config = self.config
        if self.store == "sqlite":
            yield say(
                "not judged: what a power cut takes with synchronous = {value}, since only servers end here",
                value=_value(config.streams.synchronous),
            )
        if not goes_by_leases(self.store, self.servers):
            yield say(
                "not judged: how servers take over from each other, since there is one; [streams] lease is of no account"
            )
        elif self.lasts < self._needed:
            yield say(
                "not judged: how servers take over from each other. [streams] lease = {lease:g} asks for --seconds {needed:.0f}; "
                "in {seconds} s none is killed, and none is paused for as long",
                lease=config.streams.lease,
                needed=self._needed,
                seconds=self.lasts,
            )
        elif self.seconds is None and self.lasts > SECONDS:
            yield say(
                "{seconds} s and not {usual}: [streams] lease = {lease:g} asks for it",
                seconds=self.lasts,
                usual=SECONDS,
                lease=config.streams.lease,
            )
        left = [name for name in _UNTRIED if any([_says(model, name) for model in config.models.values()])]
        if left:
            yield say("not tried: {names} of [models]", names=", ".join(left))
        own = [name for name in _OWN if any([_gives(one, name) for one in config.providers.values()])]
        if own:
            yield say("not tried: {names} of [providers]", names=", ".join(own))
        bounds, usual = (config.recovery, config.streams), Config()
        if [bounds[0].max_cost, bounds[1].unattended_max_cost] != [
            usual.recovery.max_cost,
            usual.streams.unattended_max_cost,
        ]:
            yield say("not tried: max_cost and unattended_max_cost, since the provider costs nothing")


def _of(config: Config, store: Store) -> NodeSettings:
    """What `config` has for nodes that keep streams in `store`, all as it stands."""
    streams = config.streams
    routes = dict.fromkeys([Route(model.midstream, model.on_disconnect) for model in config.models.values()])
    return NodeSettings(
        msgspec.structs.replace(streams, store=store, folder=streams.folder if store == "sqlite" else ""),
        config.recovery,
        config.retry,
        config.timeouts_of(),
        config.queue,
        config.cache,
        config.server.drain,
        tuple(routes) or (Route(),),
    )


def _says(model: ModelSettings, name: str) -> bool:
    return getattr(model, name) != getattr(ModelSettings(), name)


def _gives(provider: ProviderSettings, name: str) -> bool:
    return getattr(provider, name) != getattr(ProviderSettings("openai"), name)


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()
