"""What strangers are told of a value that does not fit."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from cauce.domain.errors import InvalidRequest
from cauce.wire.fields import check
from cauce.wire.native.request import MessageRequestBody


class Inner(msgspec.Struct, rename="camel"):
    one_of: Literal["up", "down"] | None = None


class Outer(msgspec.Struct):
    inner: dict[str, Annotated[list[Inner], msgspec.Meta(max_length=2)]] = {}
    several: tuple[Literal[1, 2], ...] = ()


@pytest.mark.parametrize(
    ("value", "shape", "told"),
    [
        (
            {"messages": [{"role": "usr", "content": "hi"}]},
            MessageRequestBody,
            "messages[0].role: must be one of assistant, developer, function, system, tool, user, not 'usr'",
        ),
        ({"inner": {"a.b": [{"oneOf": "left"}]}}, Outer, "inner[...][0].oneOf: must be one of down, up, not 'left'"),
        ({"several": [1, 3]}, Outer, "several[1]: must be one of 1, 2, not 3"),
        ({"several": ["x"]}, Outer, "several[0]: Expected `int`, got `str`"),
    ],
)
def test_value_that_is_none_of_a_few_is_told_which_there_are(value: Any, shape: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check(value, shape)
    assert raised.value.message == told
