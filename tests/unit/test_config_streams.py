"""Where streams are kept: what is refused, and what the sentence says."""

from pathlib import Path

import pytest

from cauce.config import Config
from cauce.domain.stream import StreamLimits
from tests.unit.test_config import mistake, read


def test_streams_are_kept_in_a_file_of_this_server_alone(tmp_path: Path) -> None:
    streams = read(tmp_path).streams
    assert (streams.store, streams.folder) == ("sqlite", "")
    assert streams.limits == StreamLimits() == StreamLimits(8 * 1024 * 1024, 200_000)
    assert (streams.retention, streams.retention_api, streams.on_disconnect) == (86_400, 3600, "grace")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[streams]\ndurable = false", 'streams.durable: is called store now: "memory" for what was false'),
        ('[streams]\nstore = "postgres"', "set [postgres] url"),
        ('[streams]\nstore = "redis"', "set [redis] url"),
        ('[streams]\nstore = "disk"', "streams.store: must be one of sqlite, postgres, redis, memory, not 'disk'"),
        ('[streams]\nstore = "memory"\nfolder = "/x"', 'streams.folder: is for store = "sqlite"'),
        ('[postgres]\nurl = "mysql://x"', "postgres.url: must begin with postgresql:// or postgres://"),
        ('[postgres]\nschema = ""', "postgres.schema: expected"),
        ("[streams]\nretention = 599", "streams.retention: expected"),
        ("[streams]\nretention_api = 1", "streams.retention_api: expected"),
        ("[streams]\nstalled = -1", "streams.stalled: expected"),
        ("[streams]\nheartbeat = 20.5", "streams.heartbeat: expected `float` <= 20"),
        ("[streams]\nheartbeat = 0", "streams.heartbeat: expected"),
        ("[streams]\nlease = 0.5", "streams.lease: expected"),
        ('[streams]\non_disconnect = "stop"', "must be one of continue, grace, cancel"),
        ("[streams]\nmax_stream = 65535", "streams.max_stream: expected"),
        ("[streams]\nmax_records = 999", "streams.max_records: expected"),
        ("[streams]\nunattended_max_cost = -1", "streams.unattended_max_cost: expected"),
    ],
)
def test_mistake_is_one_sentence_with_its_place(tmp_path: Path, toml: str, told: str) -> None:
    sentence = mistake(tmp_path, toml)
    assert told in sentence and sentence.startswith(str(tmp_path / "cauce.toml")) and "\n" not in sentence


def test_address_of_the_database_comes_from_a_variable_and_is_never_shown(tmp_path: Path) -> None:
    toml = '[streams]\nstore = "postgres"\n[postgres]\nurl = "env:DATABASE"\n'
    config: Config = read(tmp_path, toml, DATABASE="postgresql://cauce:secret@db/cauce")
    assert config.postgres.url.endswith("@db/cauce") and "secret" not in repr(config)
    assert "variable DATABASE is not set" in mistake(tmp_path, toml)
