"""What a run of chaos takes from a configuration, and what it says of the rest."""

from pathlib import Path

import msgspec
import pytest

from cauce.cli.trial import SECONDS, Trial
from cauce.config import Config, load
from cauce.testing.chaos import Ground, lasting
from cauce.testing.chaos.node import Store, model

FULL = """
[server]
drain = 0.5
[streams]
heartbeat = 3
stalled = 7
lease = 5
synchronous = "normal"
retention = 700
retention_api = 800
on_disconnect = "cancel"
grace = 4
max_disk = 20000000
max_stream = 70000
max_records = 5000
[recovery]
attempts = 3
no_progress = 40
age = 50
max_cost = 1.5
[retry]
attempts = 2
base = 0.1
cap = 1
[queue]
length = 5
wait = 6
[cache]
enabled = false
[timeouts]
connect = 1
first_delta = 2
idle = 1.5
total = 90
logged = 900
[models.a]
candidates = ["offline"]
midstream = "fail"
[models.b]
candidates = ["offline"]
midstream = "resume"
on_disconnect = "grace:9"
buffer = true
[limits.keys."*"]
concurrent = 2
"""


def configured(folder: Path, toml: str = "") -> Config:
    file = folder / "cauce.toml"
    file.write_text(toml)
    return load(file, {}, folder)


def ground(trial: Trial, folder: Path) -> Ground:
    url = {"postgres": "postgresql:///x", "redis": "redis://127.0.0.1/0"}.get(trial.store, "")
    return Ground(trial.store, folder, url, "room", trial.settings)


@pytest.mark.parametrize("store", ["sqlite", "postgres", "redis", "memory"])
@pytest.mark.parametrize("toml", ["", FULL])
def test_nodes_are_configured_as_the_user_has_it(tmp_path: Path, store: Store, toml: str) -> None:
    config = configured(tmp_path, toml)
    trial = Trial(config, store)
    written = ground(trial, tmp_path).config("n0", 1, several=trial.servers > 1)
    node = configured(tmp_path, written)
    own = {"store": store, "folder": node.streams.folder}
    assert node.streams == msgspec.structs.replace(config.streams, **own)
    assert (node.recovery, node.retry, node.queue, node.cache) == (
        config.recovery,
        config.retry,
        config.queue,
        config.cache,
    )
    assert (node.timeouts.total, node.timeouts.logged) == (config.timeouts.total, config.timeouts.logged)
    kinds = [(route.midstream, route.on_disconnect) for route in config.models.values()] or [("continue", "")]
    models = [node.models[model(number)] for number in range(len(kinds))]
    assert [(one.midstream, one.on_disconnect) for one in models] == kinds
    assert not node.breaker.enabled and not node.limits.keys


def test_what_is_waited_for_longer_than_the_run_can_see_is_shortened_and_told(tmp_path: Path) -> None:
    trial = Trial(configured(tmp_path), "sqlite")
    settings = trial.settings
    assert (settings.drain, settings.timeouts.idle, settings.timeouts.connect) == (1.0, 2.0, 2.0)
    said = "\n".join(trial.notes)
    assert "[server] drain = 1.0 (20.0)" in said and "[timeouts] idle = 2.0 (30.0)" in said
    patient = Trial(configured(tmp_path), "sqlite", seconds=400).settings
    assert (patient.drain, patient.timeouts.idle, patient.timeouts.connect) == (20.0, 30.0, 5.0)
    quick = Trial(configured(tmp_path, FULL), "sqlite")
    assert (quick.settings.drain, quick.settings.timeouts.idle) == (0.5, 1.5)
    assert "in place of yours" not in "\n".join(quick.notes)


@pytest.mark.parametrize(
    ("lease", "nodes", "seconds", "lasts", "judged"),
    [
        (10.0, 2, None, 50, True),
        (10.0, 2, 49, 49, False),
        (10.0, 2, 50, 50, True),
        (2.0, 2, None, SECONDS, True),
        (60.0, 1, None, SECONDS, True),
        (500.0, 2, None, 600, False),
    ],
)
def test_run_is_as_long_as_a_lease_needs_or_says_that_takeovers_are_not_judged(
    tmp_path: Path, lease: float, nodes: int, seconds: int | None, lasts: int, judged: bool
) -> None:
    trial = Trial(configured(tmp_path, f"[streams]\nlease = {lease}"), "sqlite", nodes, seconds)
    assert trial.lasts == lasts
    planned = lasting(ground(trial, tmp_path), trial.lasts, 10, nodes, 1)
    assert ("kill" in planned.harm) == judged
    said = "not judged: how servers take over from each other. [streams] lease"
    assert any([said in note for note in trial.notes]) != judged
    if not judged:
        assert planned.away is not None and 1.5 * planned.away < lease


def test_servers_are_as_many_as_may_share_the_store(tmp_path: Path) -> None:
    alone, folder = configured(tmp_path), configured(tmp_path, '[streams]\nfolder = "/x"')
    assert [Trial(alone, store).servers for store in ("sqlite", "postgres", "redis", "memory")] == [1, 2, 2, 1]
    assert Trial(folder, "sqlite").servers == 2 and Trial(folder, "sqlite", 1).servers == 1
    assert Trial(alone, "memory", 3).servers == 1
    assert "one server, not 3" in "\n".join(Trial(alone, "memory", 3).notes)
    # A server that shares a folder with nobody goes by leases all the same.
    assert 'folder = "' in ground(Trial(folder, "sqlite", 1), tmp_path).config("n0", 1, several=False)


def test_what_settings_do_not_promise_and_what_cannot_be_tried_is_told(tmp_path: Path) -> None:
    said = "\n".join(Trial(configured(tmp_path, FULL), "sqlite").notes)
    for sentence in (
        '[streams] synchronous = "normal"',
        "[recovery] attempts = 3: an answer may break off after as many",
        "[streams] max_stream = 70000, max_records = 5000: a longer answer has to end there",
        'midstream = "fail": an answer that breaks has to end there',
        'midstream = "resume": an answer may break off',
        "on_disconnect: an answer that nobody reads may end as cancelled",
        'what a power cut takes with synchronous = "normal"',
        "not tried: buffer of [models]",
        "not tried: max_cost",
        "[limits] and [budgets] are left out",
        "[breaker] enabled = false",
    ):
        assert sentence in said, said
    own = '[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n[providers.up.retry]\nattempts = 1\n'
    assert "not tried: retry of [providers]" in "\n".join(Trial(configured(tmp_path, own), "sqlite").notes)
    assert "not tried" not in "\n".join(Trial(configured(tmp_path, ""), "sqlite").notes)
    off = "\n".join(Trial(configured(tmp_path, "[recovery]\nattempts = 0\nage = 4"), "memory").notes)
    assert "[recovery] attempts = 0: an answer that breaks may end there" in off
    assert "[recovery] age = 4: an answer that lasts for longer may break off" in off
    assert 'store = "memory": streams may go with their server' in off


def test_store_without_room_for_the_streams_of_a_run_may_forget_those_that_ended(tmp_path: Path) -> None:
    def planned(toml: str, store: Store, streams: int) -> bool:
        return lasting(ground(Trial(configured(tmp_path, toml), store), tmp_path), 20, streams, 1, 1).tight

    assert not planned("", "sqlite", 60) and not planned("", "memory", 60)
    assert planned("[streams]\nmax_disk = 16777216", "sqlite", 200)
    assert planned("[streams]\nmax_bytes = 1048576", "memory", 60)
    assert not planned("[streams]\nmax_bytes = 1048576", "sqlite", 60)
