"""`cauce check`."""

import json
import re
import resource
import socket

import pytest

from cauce.cli.advice import advice
from cauce.config import ProviderSettings
from cauce.domain.errors import ErrorCode, ProviderFailure
from cauce.server.door import places
from cauce.server.gate import hash_key
from cauce.testing.upstream import Upstream
from tests.e2e.cli.command import Home
from tests.e2e.cli.refusing import refusing
from tests.serving import serving, upstream_table

pytestmark = pytest.mark.anyio

PORT = "[server]\nport = 0\n"


async def test_a_working_configuration_is_explained_and_fine(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(
            PORT
            + upstream_table("up", upstream.base_url, default_model="fake-model")
            + '[models.fast]\ncandidates = ["up/fake-model", "offline"]\n[aliases]\nmini = "fast"\n'
        )
        checked = await home.cauce("check")
    assert (checked.code, checked.err) == (0, "")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for sentence in (
        f"read from {home.file}",
        f"✓ up: {upstream.base_url}, a key is set, lists 1 model in ",
        "auto asks, in this order: up/fake-model > offline",
        "fast asks, in this order: up/fake-model > offline",
        "mini stands for fast",
        "no API keys: any key or none is accepted",
        f"{hard} files may be open (ulimit -Hn), which has room for {int(places(hard))} connections at once",
        "the port is free",
        f"the data folder {home.folder}/.local/share/cauce can be written",
        "5 s to connect",
        "28 s for a plain answer",
    ):
        assert sentence in checked.out
    assert checked.out.endswith("all is well\n")
    assert upstream.requests == []
    assert not (home.folder / ".local").exists()


async def test_it_tells_how_long_connecting_and_the_first_byte_take(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(PORT + upstream_table("up", upstream.base_url))
        told = await home.cauce("check")
        found = await home.cauce("check", "--json")
    assert re.search(r"^ +connected in \d+\.\d ms, first byte after \d+\.\d ms$", told.out, re.M)
    handshake = json.loads(found.out)["providers"][0]["handshake"]
    assert handshake["connect"] > 0 and handshake["first_byte"] > 0 and handshake["tls"] is None


async def test_it_tells_what_providers_and_routes_have_of_their_own(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(
            PORT
            + upstream_table("up", upstream.base_url, default_model="fake-model")
            + "[providers.up.retry]\nattempts = 5\nbase = 1\n[providers.up.breaker]\nenabled = false\n"
            + upstream_table("plain", upstream.base_url, default_model="fake-model")
            + '[models.fast]\ncandidates = ["up/fake-model"]\n[models.fast.recovery]\nmax_cost = 0.5\n'
        )
        told = await home.cauce("check")
        in_spanish = await home.cauce("check", LANG="es_ES.UTF-8")
        found = json.loads((await home.cauce("check", "--json")).out)
        shown = (await home.cauce("config", "show")).out
    lines = told.out.splitlines()
    own = [line.strip() for line in lines if line.startswith("      of its own")]
    assert own == [
        "of its own: retry.attempts = 5, retry.base = 1.0, breaker.enabled = false",
        "of its own: recovery.max_cost = 0.5",
    ]
    assert lines[lines.index("      " + own[1]) - 1].strip().startswith("fast asks")
    assert f"      {own[0].replace('of its own', 'lo suyo')}" in in_spanish.out
    assert "enumera 1 modelo en " in in_spanish.out
    assert {one["name"]: one["overrides"] for one in found["providers"]} == {
        "up": {"retry": {"attempts": 5, "base": 1.0}, "breaker": {"enabled": False}},
        "plain": {},
    }
    assert found["route_overrides"] == {"fast": {"recovery": {"max_cost": 0.5}}}
    assert "retry = { attempts = 5, base = 1.0 }\nbreaker = { enabled = false }\n" in shown
    assert "recovery = { max_cost = 0.5 }\n" in shown and shown.count("recovery = ") == 1


KEY = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\ntenant = "shop"\n'
MISTYPED = (
    "[limits.keys.wbe]\nconcurrent = 1\n[budgets.keys.wbe]\nday = 1\n[budgets.tenants.shpo]\nday = 1\n"
    '[limits.models."opnai/*"]\nconcurrent = 1\n[facts."pu/*"]\ninput_price = 1\noutput_price = 2\n'
)
MEANT = (
    '[limits.keys."*"]\nconcurrent = 1\n[limits.keys."w?b"]\nconcurrent = 1\n[limits.keys.anonymous]\nconcurrent = 1\n'
    "[budgets.keys.web]\nday = 1\n[budgets.tenants.shop]\nday = 1\n[budgets.tenants.default]\nday = 1\n"
    '[budgets.users.anyone]\nday = 1\n[facts."up/*"]\ninput_price = 1\noutput_price = 2\n'
    + "".join(
        [
            f'[limits.models."{glob}"]\nconcurrent = 1\n'
            for glob in ("up/*", "*", "*/m", "*m", "u*x/m", "[ou]p/m", "offline/*")
        ]
    )
)


async def test_limits_budgets_and_facts_that_fit_nobody_are_warned_of_by_name(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(PORT + upstream_table("up", upstream.base_url, default_model="fake-model") + KEY + MISTYPED)
        told = await home.cauce("check")
        in_spanish = await home.cauce("check", LANG="es_ES.UTF-8")
        found = (await home.cauce("check", "--json")).json()
    assert told.code == 0
    warned = [line.removeprefix("! ") for line in told.out.splitlines() if line.startswith("! ")]
    assert (
        warned
        == found["warnings"]
        == [
            '[limits.keys."wbe"] fits no API key, so it holds for nobody: there are web, anonymous',
            '[budgets.keys."wbe"] fits no API key, so it holds for nobody: there are web, anonymous',
            '[budgets.tenants."shpo"] fits no tenant, so it holds for nobody: there are shop, default',
            '[limits.models."opnai/*"] fits no provider that is there now, so it holds for no model: there are up, offline',
            '[facts."pu/*"] fits no provider that is there now, so it holds for no model: there are up, offline',
        ]
    )
    assert '! [limits.keys."wbe"] no encaja con ninguna clave de API' in in_spanish.out


async def test_limits_budgets_and_facts_that_fit_somebody_are_not_warned_of(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(PORT + upstream_table("up", upstream.base_url, default_model="fake-model") + KEY + MEANT)
        told = await home.cauce("check", "--json")
    assert told.json()["warnings"] == []


async def test_secrets_are_shown_nowhere(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(PORT + upstream_table("up", upstream.base_url).replace("upstream-key", "sesame"))
        outputs = [await home.cauce(*words) for words in (["check"], ["check", "--json"], ["config", "show"])]
    assert not any("sesame" in output.out for output in outputs)
    assert [output.code for output in outputs] == [0, 0, 0]


async def test_it_is_explained_in_spanish_where_the_locale_is(home: Home) -> None:
    home.configure(PORT)
    checked = await home.cauce("check", LANG="es_ES.UTF-8")
    assert checked.out.startswith("Configuración\n")
    assert checked.out.endswith("todo está bien\n")


@pytest.mark.parametrize(
    ("status", "path", "key", "advice"),
    [
        (401, "/v1", 'api_key = "x"', "its key is refused: check api_key of [providers.up]"),
        (403, "/v1", 'api_key = "x"', "its key is refused"),
        (401, "/v1", "", "it wants a key and none is set"),
        (404, "", "", "/v1 right?"),
        (404, "/v1", "", "check base_url of [providers.up]"),
        (429, "/v1", "", "its limit is reached"),
        (503, "/v1", "", "try again later"),
    ],
)
async def test_a_provider_that_refuses_is_a_failure_with_advice(
    home: Home, status: int, path: str, key: str, advice: str
) -> None:
    async with refusing(status) as address:
        home.configure(PORT + f'[providers.up]\nkind = "openai"\nbase_url = "{address}{path}"\n{key}\n')
        checked = await home.cauce("check")
    assert (checked.code, checked.err) == (1, "")
    assert f"✗ up: {address}{path}, {'a key is set' if key else 'no key is set'}" in checked.out
    assert advice in checked.out
    assert checked.out.endswith("not every provider answers: up\n")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["words", "json"])
async def test_a_key_that_a_provider_repeats_is_not_shown(home: Home, form: tuple[str, ...]) -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-a-secret-of-ours", "code": "invalid_api_key"}}'
    async with refusing(401, body=body) as address:
        settings = f'[providers.up]\nkind = "openai"\nbase_url = "{address}/v1"\napi_key = "sk-a-secret-of-ours"\n'
        home.configure(PORT + settings)
        checked = await home.cauce("check", *form)
    assert checked.code == 1 and "Incorrect API key provided: …" in checked.out
    assert "sk-a-secret-of-ours" not in checked.out + checked.err


async def test_a_web_page_in_place_of_an_api_is_a_wrong_address(home: Home) -> None:
    async with refusing(200, body=b"<html>Welcome</html>") as address:
        home.configure(PORT + f'[providers.up]\nkind = "openai"\nbase_url = "{address}"\n')
        checked = await home.cauce("check")
    assert checked.code == 1
    assert f"is {address}/v1 right?" in checked.out


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_that_is_not_running_is_told_so(home: Home, host: str) -> None:
    async with Upstream() as upstream:
        port = upstream.port
    home.configure(PORT + f'[providers.up]\nkind = "openai"\nbase_url = "http://{host}:{port}/v1"\n')
    checked = await home.cauce("check")
    assert checked.code == 1
    assert "nothing listens there: is the server running" in checked.out


async def test_secure_addresses_of_plain_servers_are_told_so(home: Home) -> None:
    async with refusing(400, after=b"") as address:
        home.configure(PORT + f'[providers.up]\nkind = "openai"\nbase_url = "{address.replace("http", "https")}/v1"\n')
        checked = await home.cauce("check")
    assert checked.code == 1
    assert "does base_url need http://" in checked.out


def failure_from(cause: Exception, code: ErrorCode | None = None) -> ProviderFailure:
    failure = ProviderFailure("It broke.", failure="transient", provider="up", code=code)
    failure.__cause__ = cause
    return failure


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (failure_from(TimeoutError(), "timeout"), "no answer in time"),
        (failure_from(socket.gaierror(-2, "Name or service not known")), "there is no such host"),
        (failure_from(ConnectionResetError()), ""),
    ],
)
def test_what_no_fake_server_can_do_has_its_advice_too(failure: ProviderFailure, told: str) -> None:
    given = advice("up", ProviderSettings("openai", "http://127.0.0.1:1/v1"), failure)
    assert given.startswith(told)
    assert bool(given) is bool(told)


async def test_models_that_a_provider_does_not_list_are_warnings(home: Home) -> None:
    async with Upstream() as upstream:
        upstream.models = ["models/gemini", "qwen:latest"]
        home.configure(
            PORT
            + upstream_table("up", upstream.base_url, default_model="gone")
            + '[models.fast]\ncandidates = ["up/gemini", "up/qwen", "up/lost", "ollama/away"]\n'
        )
        checked = await home.cauce("check")
        as_json = (await home.cauce("check", "--json")).json()
    assert checked.code == 0
    assert as_json["warnings"] == [
        "up does not list its default_model gone",
        "route fast: up does not list lost",
        "route fast: ollama/away is not there now",
    ]
    assert "! route fast: up does not list lost\n" in checked.out


@pytest.mark.parametrize(
    ("locale", "told"),
    [
        ("", "! [redis] nodes is 1: where several processes share Redis, each takes the whole of every limit"),
        ("es_ES.UTF-8", "! [redis] nodes es 1: si varios procesos comparten Redis, cada uno toma cada límite entero"),
    ],
)
async def test_redis_whose_processes_nobody_has_counted_is_a_warning(home: Home, locale: str, told: str) -> None:
    home.configure(PORT + '[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    uncounted = await home.cauce("check", LANG=locale)
    assert uncounted.code == 0 and told in uncounted.out
    for counted in ('[redis]\nurl = "redis://127.0.0.1:1/0"\nnodes = 2\n', ""):
        home.configure(PORT + counted)
        assert "[redis] nodes" not in (await home.cauce("check", LANG=locale)).out


async def test_an_open_door_is_a_mistake(home: Home) -> None:
    home.configure('[server]\nhost = "0.0.0.0"\nport = 0\n')
    checked = await home.cauce("check")
    assert checked.code == 2
    assert "without API keys would let anyone use your models" in checked.out
    assert checked.out.endswith("`cauce serve` would refuse to start\n")


async def test_a_data_folder_that_is_a_file_is_a_mistake(home: Home) -> None:
    home.configure(PORT + f'data_dir = "{home.file}"\n')
    checked = await home.cauce("check")
    assert checked.code == 2
    assert "is not a folder" in checked.out


async def test_a_folder_of_streams_is_told_and_one_that_is_a_file_is_a_mistake(home: Home) -> None:
    home.configure(PORT + f'[streams]\nfolder = "{home.folder}/shared"\n')
    told = await home.cauce("check")
    assert (told.code, told.err) == (0, "")
    assert f"streams are kept in {home.folder}/shared: servers that name it take over from each other" in told.out
    home.configure(PORT + f'[streams]\nfolder = "{home.file}"\n')
    refused = await home.cauce("check")
    assert refused.code == 2
    assert f"the folder of streams {home.file} cannot be used" in refused.out


@pytest.mark.parametrize(
    "wrong", ["postgresql://db:port/cauce", "postgresql://db/cauce?foo=bar", "postgresql://db:70000/"]
)
async def test_an_address_of_postgresql_that_is_none_is_a_mistake(home: Home, wrong: str) -> None:
    home.configure(PORT + f'[streams]\nstore = "postgres"\n[postgres]\nurl = "{wrong}"\n')
    for command in ("check", "serve"):
        refused = await home.cauce(command)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == "cauce: postgres.url: must be an address such as postgresql://user@127.0.0.1:5432/cauce\n"


async def test_a_mistake_in_the_file_is_exit_code_2(home: Home) -> None:
    home.configure("[server]\nport = 'many'\n")
    checked = await home.cauce("check")
    assert (checked.code, checked.out) == (2, "")
    assert checked.err.startswith(f"cauce: {home.file}: ")


async def test_a_port_that_another_program_holds_is_told_and_no_failure(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(f"[server]\nport = {upstream.port}\n")
        checked = await home.cauce("check")
    assert checked.code == 0
    assert "the port is taken by another program" in checked.out


async def test_a_cauce_that_holds_the_port_is_recognised(home: Home) -> None:
    async with serving() as served:
        home.configure(f"[server]\nport = {served.port}\n")
        checked = await home.cauce("check")
    assert checked.code == 0
    assert "a Cauce is running there now" in checked.out


async def test_servers_on_this_machine_are_told(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(PORT + f"[discovery]\nports = {{ openai-compatible = [{upstream.port}] }}\n")
        checked = await home.cauce("check", CAUCE_DISCOVERY__ENABLED="true")
    assert checked.code == 0
    assert "found on this machine, 1 model" in checked.out


async def test_json_tells_programs_the_same(home: Home) -> None:
    async with Upstream() as upstream, refusing(401) as address:
        home.configure(
            PORT + upstream_table("up", upstream.base_url) + upstream_table("down", f"{address}/v1", default_model="m")
        )
        checked = await home.cauce("check", "--json")
    told = checked.json()
    providers = {provider["name"]: provider for provider in told["providers"]}
    assert checked.code == 1
    assert (providers["up"]["models"], providers["down"]["models"]) == (1, None)
    assert providers["down"]["key_set"] is True
    assert "api_key" in providers["down"]["advice"]
    assert told["server"]["port_state"] == {"state": "free"}
    assert told["auto"] == ["up/fake-model", "down/m", "offline"]
    assert told["warnings"] == ["up has no default_model: its name alone asks fake-model, the first it lists"]


async def test_every_deployment_of_a_provider_is_tried(home: Home) -> None:
    async with Upstream() as upstream:
        home.configure(
            PORT
            + upstream_table("up", upstream.base_url, default_model="fake-model")
            + '[[providers.up.deployments]]\nname = "good"\n'
            + '[[providers.up.deployments]]\nname = "bad"\nbase_url = "http://127.0.0.1:1/v1"\n'
        )
        checked = await home.cauce("check")
    assert checked.code == 1
    assert f"✓ up [good]: {upstream.base_url}" in checked.out
    assert "up [bad]: http://127.0.0.1:1/v1" in checked.out
    assert checked.out.endswith("not every provider answers: up [bad]\n")
