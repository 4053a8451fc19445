"""Configuration: what is read from where, and how mistakes are told."""

from pathlib import Path

import pytest

from cauce.config import Config, ConfigError, load
from cauce.ports.provider import Timeouts


def read(tmp_path: Path, toml: str | None = None, **environment: str) -> Config:
    if toml is not None:
        (tmp_path / "cauce.toml").write_text(toml)
    return load(None, environment, tmp_path)


def mistake(tmp_path: Path, toml: str = "", **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, toml, **environment)
    return str(caught.value)


def test_no_file_is_needed(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.server.host, config.server.port, config.providers) == ("127.0.0.1", 8000, {})


def test_file_in_the_folder_is_read_and_named(tmp_path: Path) -> None:
    config = read(tmp_path, "[server]\nport = 9000")
    assert config.server.port == 9000
    assert config.sources == (str(tmp_path / "cauce.toml"),)


def test_variable_names_a_file_elsewhere(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 9001")
    assert read(tmp_path, "[server]\nport = 9000", CAUCE_CONFIG=str(other)).server.port == 9001


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[server]\nport = 9000\n[providers.local]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"',
        CAUCE_SERVER__PORT="9002",
        CAUCE_PROVIDERS__LOCAL__BASE_URL="http://127.0.0.1:2/v1",
        CAUCE_PROVIDERS__LOCAL__TIMEOUTS__IDLE="7.5",
        CAUCE_DISCOVERY__ENABLED="false",
        CAUCE_SERVER__CORS_ORIGINS='["null"]',
    )
    assert config.server.port == 9002
    assert config.providers["local"].base_url == "http://127.0.0.1:2/v1"
    assert config.timeouts_of("local").idle == 7.5
    assert config.discovery.enabled is False
    assert config.server.cors_origins == ("null",)


def test_openai_appears_by_itself_with_its_key(tmp_path: Path) -> None:
    provider = read(tmp_path, OPENAI_API_KEY="sk-1").providers["openai"]
    assert provider.base_url == "https://api.openai.com/v1"
    elsewhere = read(tmp_path, OPENAI_API_KEY="sk-1", OPENAI_BASE_URL="http://127.0.0.1:5/v1").providers["openai"]
    assert elsewhere.base_url == "http://127.0.0.1:5/v1"


def test_keys_come_from_variables_and_are_never_shown(tmp_path: Path) -> None:
    toml = '[providers.a]\nkind = "openai"\nbase_url = "https://a.example/v1"\napi_key = "env:A_KEY"'
    config = read(tmp_path, toml, A_KEY="very-secret")
    assert config.providers["a"].api_key == "very-secret"
    assert "very-secret" not in repr(config)


def test_timeouts_are_taken_from_the_nearest_place(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        "[timeouts]\nidle = 10\ntotal = 99\n"
        '[providers.a]\nkind = "openai"\nbase_url = "https://a.example/v1"\ntimeouts = { idle = 5, first_delta = 7 }\n'
        '[models.r]\ncandidates = ["a/m", "ollama/q"]\ntimeouts = { first_delta = 2, logged = 7200 }\n'
        '[models.plain]\ncandidates = ["a/m"]\n',
    )
    assert config.timeouts_of("a") == Timeouts(5, 7, 5, 300, 99)
    assert config.timeouts_of("a", "plain") == Timeouts(5, 7, 5, 300, 99)
    assert config.timeouts_of("a", "r") == Timeouts(5, 2, 5, 300, 99, 7200)
    # One that is found on this machine has none of its own.
    assert config.timeouts_of("ollama", "r") == Timeouts(5, 2, 10, 300, 99, 7200)


PROVIDER = '[providers.a]\nkind = "openai"\nbase_url = "https://a.example/v1"\n'


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[server", "is not valid TOML"),
        ("[sever]\nport = 1", "there is no section 'sever'; did you mean 'server'?"),
        ("[server]\nprot = 1", "[server] has no key 'prot'; did you mean 'port'?"),
        ('[server]\nport = "many"', "server.port: expected `int`, got `str`"),
        ("[server]\nport = 70000", "server.port: expected `int` <= 65535"),
        ("server = 5", "[server] must be a table"),
        ('[providers.a]\nkind = "openai"', "providers.a.base_url: is missing: give the http:// or https:// address"),
        (
            '[providers.a]\nkind = "openai"\nbase_url = "a.example"',
            "providers.a.base_url: must be an http:// or https:// address",
        ),
        ('[providers.a]\nkind = "magic"', "providers.a.kind: must be one of openai, anthropic, gemini"),
        ('[providers.a]\nbase_url = "https://a.example"', "providers.a: object missing required field `kind`"),
        ('[providers."a b"]\nkind = "offline"', "a name has letters, digits, dots, dashes and underscores only"),
        ('[providers.mine]\nkind = "offline"', "the offline answerer is always called offline"),
        (PROVIDER + 'dialect = "latin"', "providers.a.dialect: must be one of"),
        (PROVIDER + 'api_key = "env:NOT_THERE"', "providers.a.api_key: the variable NOT_THERE is not set"),
        (PROVIDER + "timeouts = { idel = 1 }", "[providers.a.timeouts] has no key 'idel'; did you mean 'idle'?"),
        ("[models.fast]\ncandidates = []", "models.fast.candidates: must name at least one model"),
        (
            '[models.fast]\ncandidates = ["b/x"]',
            "models.fast.candidates: 'b/x' names no provider; known are: offline, auto",
        ),
        ('[aliases]\nmini = "b/x"', "aliases.mini: 'b/x' names no provider"),
        (
            f'[[auth.keys]]\nname = "c"\ntenant = "a/b"\nhash = "sha256:{"ab" * 32}"\n[[auth.keys]]\nname = "b/c"\ntenant = "a"\nhash = "sha256:{"ab" * 32}"',
            "auth.keys[1]: name and tenant read 'a/b/c' as another key's do",
        ),
        ('[[auth.keys]]\nname = "web"\nhash = "abc"', "auth.keys[0].hash: must be sha256: and 64 hex digits"),
        ("[memory]\nenabled = true", "there is no section 'memory'"),
        (
            "[breaker]\ncooldown = 100\nlongest = 1",
            "breaker.cooldown: must be at most longest (1): it begins with it",
        ),
        (
            "[timeouts]\nidle = 100000\ntotal = 1",
            "timeouts.idle: must be at most total (1), or logged for what is in the log: a call ends before",
        ),
        ("[timeouts]\nfirst_delta = 9\ntotal = 8\nlogged = 7", "timeouts.first_delta: must be at most total (8), or"),
        (
            '[providers.a]\nkind = "openai"\nbase_url = "http://a/v1"\nbreaker = { cooldown = 9, longest = 8 }',
            "providers.a.breaker.cooldown: must be at most longest (8)",
        ),
        (
            '[models.m]\ncandidates = ["offline"]\ntimeouts = { stalled = 9, total = 8, logged = 8 }',
            "models.m.timeouts.stalled: must be at most total (8)",
        ),
        ("[timeouts]\nidle = 0", "timeouts.idle: expected `float` > 0"),
    ],
)
def test_mistake_is_one_sentence_with_file_key_and_what_would_be_right(tmp_path: Path, toml: str, told: str) -> None:
    message = mistake(tmp_path, toml)
    assert message.startswith(str(tmp_path / "cauce.toml"))
    assert told in message
    assert "\n" not in message.partition("TOML")[0]


@pytest.mark.parametrize(
    "toml",
    [
        "[breaker]\ncooldown = 100",
        "[breaker]\nlongest = 1",
        "[breaker]\ncooldown = 9\nlongest = 9",
        "[timeouts]\nidle = 700",
        "[timeouts]\ntotal = 1",
        "[timeouts]\nidle = 700\ntotal = 600",
        '[models.m]\ncandidates = ["offline"]\ntimeouts = { idle = 100000 }',
    ],
)
def test_what_stands_against_a_default_or_holds_for_logged_streams_is_no_mistake(tmp_path: Path, toml: str) -> None:
    read(tmp_path, toml)


def test_mistakes_in_variables_are_told_too(tmp_path: Path) -> None:
    assert "there is no section 'nope'" in mistake(tmp_path, CAUCE_NOPE__X="1")
    assert mistake(tmp_path, "[server]\nport = 1", CAUCE_SERVER__PORT="x").startswith(
        "the variable CAUCE_SERVER__PORT: server.port"
    )
    assert mistake(tmp_path, CAUCE_SERVER__PROT="1").startswith("the variable CAUCE_SERVER__PROT: [server] has no key")
    assert mistake(tmp_path, "[server]\nprot = 1", CAUCE_SERVER__PORT="1").startswith(str(tmp_path))
    told = mistake(tmp_path, "[server]\nport = 1", CAUCE_LIMITS__KEYS='{"*": {"rpm": 1}}')
    assert told.startswith("""the variable CAUCE_LIMITS__KEYS: [limits.keys."*"] has no key 'rpm'""")
    assert "DEFAULT_TEMPERATURE: must be a number" in mistake(tmp_path, DEFAULT_TEMPERATURE="warm")
    assert "begins like JSON" in mistake(tmp_path, CAUCE_SERVER__HOSTS="[oops")
    assert "there is no such configuration file" in mistake(tmp_path, CAUCE_CONFIG=str(tmp_path / "gone.toml"))


def test_providers_whose_key_is_in_the_environment_appear_by_themselves(tmp_path: Path) -> None:
    config = read(tmp_path, ANTHROPIC_API_KEY="a", GEMINI_API_KEY="g", GEMINI_BASE_URL="http://127.0.0.1:9")
    assert config.providers["anthropic"].base_url == "https://api.anthropic.com"
    assert config.providers["gemini"].base_url == "http://127.0.0.1:9"
    assert (config.providers["anthropic"].api_key, config.providers["gemini"].api_key) == ("a", "g")
    assert read(tmp_path, GOOGLE_AI_API_KEY="first", GEMINI_API_KEY="second").providers["gemini"].api_key == "first"


def test_kinds_with_one_maker_need_no_address(tmp_path: Path) -> None:
    config = read(tmp_path, '[providers.claude]\nkind = "anthropic"\napi_key = "k"')
    assert config.providers["claude"].base_url == "https://api.anthropic.com"
