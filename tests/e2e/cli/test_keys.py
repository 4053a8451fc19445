"""`cauce keys`."""

import re
import stat
import tomllib
from pathlib import Path

import pytest

from cauce.config import load
from cauce.server.gate import hash_key
from tests.e2e.cli.command import Home

pytestmark = pytest.mark.anyio

KEY = re.compile(r"cauce_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


async def test_a_new_key_is_printed_with_the_lines_that_hold_its_hash(home: Home) -> None:
    made = await home.cauce("keys", "new", "web", "--tenant", "shop")
    key, _, lines = made.out.partition("\n")
    assert made.code == 0
    assert KEY.fullmatch(key)
    assert made.err.count(key) == 0
    assert tomllib.loads(lines) == {"auth": {"keys": [{"name": "web", "hash": hash_key(key), "tenant": "shop"}]}}


async def test_two_keys_differ(home: Home) -> None:
    first, second = await home.cauce("keys", "new", "a"), await home.cauce("keys", "new", "a")
    assert first.out.splitlines()[0] != second.out.splitlines()[0]


async def test_a_new_key_is_added_to_a_file_that_then_accepts_it(home: Home) -> None:
    home.configure("[server]\nport = 8001")
    made = await home.cauce("keys", "new", "web", "--write", "cauce.toml")
    again = await home.cauce("keys", "new", "app", "--write", "cauce.toml")
    config = load(home.file, {}, Path())
    keys = [made.out.strip(), again.out.strip()]
    assert [KEY.fullmatch(key) is not None for key in keys] == [True, True]
    assert [key.hash for key in config.auth.keys] == [hash_key(key) for key in keys]
    assert config.server.port == 8001
    assert not any(key in home.file.read_text() for key in keys)


async def test_a_file_made_for_a_key_is_its_owners_alone(home: Home) -> None:
    made = await home.cauce("keys", "new", "web", "--write", "keys.toml")
    file = home.folder / "keys.toml"
    assert made.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load(file, {}, Path()).auth.keys[0].name == "web"


async def test_a_name_that_is_taken_is_refused(home: Home) -> None:
    await home.cauce("keys", "new", "web", "--write", "cauce.toml")
    before = home.file.read_text()
    for arguments in (["new", "web"], ["new", "web", "--write", "cauce.toml"]):
        refused = await home.cauce("keys", *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert "there is a key called web already" in refused.err
    assert home.file.read_text() == before


@pytest.mark.parametrize("name", ['a"b', "a b", "", ".a", "a\nb", "x" * 65])
async def test_a_name_that_does_not_fit_the_file_is_refused(home: Home, name: str) -> None:
    refused = await home.cauce("keys", "new", name)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("cauce: NAME: ")
    tenant = await home.cauce("keys", "new", "web", "--tenant", name)
    assert tenant.code == 2


async def test_keys_written_as_one_list_are_left_as_they_are(home: Home) -> None:
    before = f'[auth]\nkeys = [{{ name = "old", hash = "{hash_key("x")}" }}]\n'
    home.configure(before)
    refused = await home.cauce("keys", "new", "web", "--write", "cauce.toml")
    assert (refused.code, refused.out) == (2, "")
    assert "[[auth.keys]]" in refused.err
    assert home.file.read_text() == before


async def test_listing_shows_no_more_than_the_first_digits_of_a_hash(home: Home) -> None:
    made = await home.cauce("keys", "new", "web", "--tenant", "shop", "--write", "cauce.toml")
    digits = hash_key(made.out.strip()).removeprefix("sha256:")
    listed = await home.cauce("keys", "list")
    assert listed.out == f"web  shop  sha256:{digits[:12]}…\n"


async def test_listing_no_keys_says_what_that_means(home: Home) -> None:
    listed = await home.cauce("keys", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "no keys" in listed.err
