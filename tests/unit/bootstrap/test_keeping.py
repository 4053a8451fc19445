"""Folders that cannot be used, and what is to be changed then."""

from pathlib import Path

import msgspec
import pytest

from cauce.bootstrap.keeping import streams_folder, usable
from cauce.config import Config, ConfigError
from cauce.stores.sqlite.schema import SchemaError


def test_setting_that_names_the_folder_of_streams_and_conversations_is_the_one_to_change(tmp_path: Path) -> None:
    alone = Config()
    shared = msgspec.structs.replace(alone, streams=msgspec.structs.replace(alone.streams, folder=str(tmp_path)))
    for config, folder, named in (
        (alone, alone.data_dir, r"\[server\] data_dir"),
        (shared, tmp_path, r"\[streams\] folder"),
    ):
        with pytest.raises(ConfigError, match=f"{folder} cannot be used: full: set another {named}$"):
            with streams_folder(config) as given:
                assert given == folder
                raise OSError("full")


def test_what_is_wrong_with_a_file_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the file is damaged$"), usable(tmp_path):
        raise SchemaError("the file is damaged")
