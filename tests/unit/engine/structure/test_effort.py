"""The bound on how much work a check may be."""

from typing import Any

import pytest

from cauce.domain.errors import InvalidRequest
from cauce.domain.request import ResponseFormat
from cauce.engine.structure.effort import MOST, depth, effort
from cauce.engine.structure.expectation import MOST_LEVELS, Expectation

TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
                "right": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
                "all": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            },
        }
    },
}


def doubling(levels: int) -> dict[str, Any]:
    """A schema that looks at one value twice as often with each level."""
    definitions: dict[str, Any] = {
        f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


INSIDE = {"properties": {"a": {"$ref": "#/$defs/N"}}, "required": ["never"]}
DOUBLING_INSIDE = {"$ref": "#/$defs/N", "$defs": {"N": {"anyOf": [INSIDE, INSIDE]}}}


def test_trees_that_people_write_are_cheap() -> None:
    assert effort(TREE, MOST_LEVELS) < 10 * MOST_LEVELS
    assert effort({"type": "string"}, 0) == 1


def test_what_doubles_is_found_out_without_doing_it() -> None:
    assert effort(doubling(8), 0) < MOST < effort(doubling(60), 0)
    assert effort(DOUBLING_INSIDE, 8) < MOST < effort(DOUBLING_INSIDE, 40)


@pytest.mark.parametrize(
    "schema",
    [
        doubling(60),
        DOUBLING_INSIDE,
        {"$dynamicRef": "#x", "$defs": {"a": {"$dynamicAnchor": "x"}}},
        {"$ref": "#x", "$defs": {"a": {"$anchor": "x"}}},
        {"properties": {"a": {"$id": "https://example.com/a", "type": "string"}}},
        {"anyOf": [{"type": "string"}] * 2 * MOST},
    ],
    ids=["doubling", "doubling inside", "dynamic", "anchor", "id", "large"],
)
def test_schema_that_could_keep_the_server_busy_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="no answer could be checked"):
        Expectation(ResponseFormat("json_schema", "x", schema))


def test_answer_that_is_too_deep_is_not_checked() -> None:
    expectation = Expectation(ResponseFormat("json_schema", "x", {}))
    assert expectation.fault("[" * MOST_LEVELS + "1" + "]" * MOST_LEVELS) is None
    deeper = MOST_LEVELS + 1
    assert "too deep" in str(expectation.fault("[" * deeper + "1" + "]" * deeper))
    assert "recursion" in str(expectation.fault("[" * 5_000 + "]" * 5_000))


def test_pattern_that_backtracks_ends() -> None:
    expectation = Expectation(ResponseFormat("json_schema", "x", {"type": "string", "pattern": r"^(?=a)(a+)+\1$"}))
    assert expectation.fault('"' + "a" * 3_000 + '!"') is not None


def test_count_is_no_smaller_than_the_branches_that_are_looked_at() -> None:
    for levels in (1, 2, 5, 8):
        assert 2**levels <= effort(doubling(levels), 0) < 2 ** (levels + 3)


def test_depth() -> None:
    assert [depth(value, 3) for value in (1, [], [1], {"a": [1]}, [[[[1]]]])] == [0, 0, 1, 2, 4]
