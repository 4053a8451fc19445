"""`cauce config`."""

import re
import stat
import tomllib
from pathlib import Path

import msgspec
import pytest

from cauce.catalogue.settings import FactsSettings
from cauce.config import Config, ModelSettings, ProviderSettings, load
from cauce.engine.limit_settings import Budget, BudgetsSettings, KeyRates, LimitsSettings
from cauce.server.settings import Key
from tests.e2e.cli.command import Home

pytestmark = pytest.mark.anyio

SETTING = re.compile(r"^# (?=\[|[\w-]+ = )", re.MULTILINE)
EXAMPLES = ("providers", "models", "facts", "aliases", "auth", "limits", "budgets")


async def uncommented(home: Home) -> str:
    assert (await home.cauce("config", "init")).code == 0
    return SETTING.sub("", home.file.read_text())


async def test_the_written_file_changes_nothing(home: Home) -> None:
    written = await home.cauce("config", "init")
    assert (written.code, written.err) == (0, "")
    assert load(home.file, {}, Path()) == msgspec.structs.replace(Config(), sources=(str(home.file),))
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o600


async def test_the_written_file_is_a_configuration_with_every_setting_uncommented(home: Home) -> None:
    home.configure(await uncommented(home))
    variables = re.findall(r'"env:(\w+)"', home.file.read_text())
    config = load(home.file, dict.fromkeys(variables, "secret"), Path())
    assert len(config.providers) >= 5
    for name in set(Config.__struct_fields__) - {*EXAMPLES, "environment", "sources", "notes"}:
        assert getattr(config, name) == getattr(Config(), name), f"[{name}] does not show the defaults"


async def test_the_written_file_shows_every_setting_there_is(home: Home) -> None:
    raw = tomllib.loads(await uncommented(home))
    for field in msgspec.structs.fields(Config):
        if isinstance(field.default, msgspec.Struct) and field.name not in (*EXAMPLES, "environment"):
            assert list(raw[field.name]) == list(field.default.__struct_fields__)
    shown = {name for table in raw["providers"].values() for name in table}
    assert shown == set(ProviderSettings.__struct_fields__)
    assert {name for table in raw["models"].values() for name in table} == set(ModelSettings.__struct_fields__)
    assert {name for table in raw["facts"].values() for name in table} == set(FactsSettings.__struct_fields__)
    by_glob = (raw["limits"]["models"], raw["limits"]["keys"])
    rates = {name for tables in by_glob for table in tables.values() for name in table}
    assert set(raw["limits"]) == set(LimitsSettings.__struct_fields__) and rates == set(KeyRates.__struct_fields__)
    assert set(raw["budgets"]) == set(BudgetsSettings.__struct_fields__)
    assert set(raw["budgets"]["keys"]["*"]) == set(Budget.__struct_fields__)
    assert set(raw["auth"]["keys"][0]) == set(Key.__struct_fields__)


async def test_a_file_that_is_there_is_kept_unless_forced(home: Home) -> None:
    home.configure("# mine\n")
    refused = await home.cauce("config", "init")
    assert (refused.code, refused.out) == (2, "")
    assert "--force" in refused.err
    assert home.file.read_text() == "# mine\n"
    assert (await home.cauce("config", "init", "--force")).code == 0
    assert home.file.read_text() != "# mine\n"


async def test_another_file_can_be_named(home: Home) -> None:
    assert (await home.cauce("config", "init", "other.toml")).code == 0
    assert (home.folder / "other.toml").exists()
    assert not home.file.exists()
    missing = await home.cauce("config", "init", "no/such/folder.toml")
    assert (missing.code, missing.err.count("\n")) == (1, 1)


async def test_what_holds_is_shown_as_toml_without_secrets(home: Home) -> None:
    home.configure(
        "[server]\nport = 8001\n"
        '[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "sesame"\n'
        'timeouts = { idle = 3 }\n[models."a.b"]\ncandidates = ["up/m"]\n[aliases]\n"x y" = "up/m"\n'
        "[discovery.ports]\nollama = [1]\n"
        f'[[auth.keys]]\nname = "web"\nhash = "sha256:{"ab" * 32}"\n'
    )
    shown = await home.cauce("config", "show", CAUCE_LOG__LEVEL="error", DEFAULT_MAX_TOKENS="9")
    told = tomllib.loads(shown.out)
    assert "sesame" not in shown.out
    assert told["server"]["port"] == 8001
    assert told["log"]["level"] == "error"
    assert told["providers"]["up"]["api_key"] == "***"
    assert told["providers"]["up"]["timeouts"] == {"idle": 3.0}
    assert told["models"]["a.b"]["candidates"] == ["up/m"]
    assert told["aliases"] == {"x y": "up/m"}
    assert told["discovery"]["ports"] == {"ollama": [1]}
    assert told["auth"]["keys"] == [{"name": "web", "hash": f"sha256:{'ab' * 6}…", "tenant": "default"}]
    assert "max_tokens = 9" in shown.out
    assert f"# {home.file}, variables CAUCE_DISCOVERY__ENABLED, CAUCE_LOG__LEVEL\n" in shown.out


async def test_every_section_that_has_settings_of_its_own_is_shown(home: Home) -> None:
    home.configure(
        '[redis]\nurl = "redis://:sesame@127.0.0.1:1/0"\n[postgres]\nurl = "postgresql://x:sesame@127.0.0.1:1/x"\n'
    )
    shown = await home.cauce("config", "show")
    named = {field.name for field in msgspec.structs.fields(Config) if isinstance(field.default, msgspec.Struct)}
    assert named - {"auth", "environment"} - set(tomllib.loads(shown.out)) == set()
    assert "sesame" not in shown.out


async def test_deployments_and_weights_are_shown_without_their_keys(home: Home) -> None:
    home.configure(
        '[providers.up]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
        '[[providers.up.deployments]]\nname = "one"\napi_key = "sesame"\n[[providers.up.deployments]]\nname = "two"\n'
        '[models.r]\nroute = "balanced"\ncandidates = [{ model = "up/a", weight = 2 }, "up/b"]\n'
    )
    shown = await home.cauce("config", "show")
    told = tomllib.loads(shown.out)
    assert "sesame" not in shown.out
    assert [(one["name"], one["api_key"]) for one in told["providers"]["up"]["deployments"]] == [
        ("one", "***"),
        ("two", ""),
    ]
    assert told["models"]["r"]["candidates"] == [{"model": "up/a", "weight": 2.0}, "up/b"]
