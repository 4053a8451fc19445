"""What the nodes of a run are configured with, beside what is the run's own: its addresses, its provider, its place in the store."""

from typing import Any

import msgspec

from cauce.engine.caching.settings import CacheSettings
from cauce.engine.policies.retry import RetrySettings
from cauce.engine.queue.settings import QueueSettings
from cauce.ports.provider import Midstream, Timeouts
from cauce.ports.resilience import RecoverySettings
from cauce.server.settings import StreamSettings


class Route(msgspec.Struct, frozen=True):
    """What a `[models.*]` says of streams."""

    midstream: Midstream = "continue"
    on_disconnect: str = ""

    @property
    def leaves(self) -> bool:
        """Whether a stream that nobody reads any more may be cancelled."""
        return self.on_disconnect not in ("", "continue")


class NodeSettings(msgspec.Struct, frozen=True):
    """Sections of a configuration, and `[server] drain`. Streams are asked for by the `routes` in turns.

    As it stands it is quick to find out what broke, patient with it, and keeps no lease for long. Of `streams` the store is the
    ground's, and `folder` says only whether servers share one.
    """

    streams: StreamSettings = StreamSettings(heartbeat=1.0, lease=2.0)
    recovery: RecoverySettings = RecoverySettings(attempts=40)
    retry: RetrySettings = RetrySettings(base=0.05, cap=0.2)
    timeouts: Timeouts = Timeouts(connect=2.0, first_delta=4.0, idle=2.0)
    queue: QueueSettings = QueueSettings()
    cache: CacheSettings = CacheSettings()
    drain: float = 1.0
    routes: tuple[Route, ...] = (Route(),)

    def sections(self) -> dict[str, dict[str, Any]]:
        """What stands in the sections of a configuration; the store, its folder and the routes are not in it."""
        named = ("streams", "recovery", "retry", "timeouts", "queue", "cache")
        found = {name: msgspec.structs.asdict(getattr(self, name)) for name in named}
        del found["streams"]["store"], found["streams"]["folder"]
        return {"server": {"drain": self.drain}, **found}

    def facts(self) -> dict[str, Any]:
        """The same for a report, by `[section] key`."""
        told = {
            f"[{section}] {key}": value for section, values in self.sections().items() for key, value in values.items()
        }
        told["[models] midstream"] = ", ".join(dict.fromkeys([route.midstream for route in self.routes]))
        leaving = [route.on_disconnect for route in self.routes if route.on_disconnect]
        return told | ({"[models] on_disconnect": ", ".join(dict.fromkeys(leaving))} if leaving else {})


def with_streams(**changed: Any) -> NodeSettings:
    """Settings as they stand, with these of `[streams]`."""
    ours = NodeSettings()
    return msgspec.structs.replace(ours, streams=msgspec.structs.replace(ours.streams, **changed))


def lines(section: str, values: dict[str, Any]) -> str:
    """A section of a configuration file, of strings, numbers and booleans."""
    # JSON's strings without DEL, numbers and booleans are TOML's.
    return "".join(
        [f"\n[{section}]\n", *[f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values.items()]]
    )
