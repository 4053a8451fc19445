"""Which candidates come first, by what is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.errors import CauceError, InvalidRequest, ModelNotFound
from cauce.domain.request import Request
from cauce.engine.routing import Route
from cauce.engine.routing.complexity import complexity
from cauce.engine.routing.decision import Fired, LeftOut
from cauce.engine.routing.route import Order
from tests.unit.engine.routing.table import ALL, LISTED, OFFLINE, Table, asking, deployment, source

LOCAL_FIRST = ["ollama/qwen", "here/gguf", "cloud/big", "other/small", "offline"]
CLOUD_FIRST = ["cloud/big", "other/small", "ollama/qwen", "here/gguf", "offline"]
LONG = "word " * 6000
CODE = "```python\nx = 1\n```\n" + "Explain what every single line of this does, please. " * 110


def test_hybrid_asks_this_machine_first_and_the_cloud_where_that_fails() -> None:
    table = Table(Route("h", LISTED, order="hybrid"))
    assert table.names(asking("h", "What is the capital of Peru?")) == LOCAL_FIRST


def test_hybrid_sends_long_prompts_to_the_cloud() -> None:
    table = Table(Route("h", LISTED, order="hybrid"))
    assert table.names(asking("h", LONG)) == CLOUD_FIRST
    assert table.router.decide(asking("h", LONG)).rules[0].rule == "long"


def test_hybrid_sends_complex_prompts_to_the_cloud() -> None:
    table = Table(Route("h", LISTED, order="hybrid"))
    assert table.names(asking("h", CODE)) == CLOUD_FIRST
    assert table.router.decide(asking("h", CODE)).rules[0].rule == "complex"


def test_hybrid_without_candidates_has_those_of_auto() -> None:
    table = Table(Route("h", (), order="hybrid"))
    assert table.names(asking("h")) == [
        "here/gguf",
        "ollama/qwen",
        "cloud/big",
        "other/small",
        "ollama/gpt-oss:120b-cloud",
        "offline",
    ]


def test_task_decides_before_length_and_complexity() -> None:
    table = Table(Route("h", LISTED, order="hybrid", tasks={"code_generation": "local", "creative_writing": "cloud"}))
    assert table.names(asking("h", LONG, task="code_generation")) == LOCAL_FIRST
    assert table.names(asking("h", "A poem.", task="creative_writing")) == CLOUD_FIRST
    assert table.router.decide(asking("h", "A poem.", task="creative_writing")).rules == (
        Fired("task", "cloud", "creative_writing"),
    )


def test_task_may_stand_in_the_metadata() -> None:
    table = Table(Route("h", LISTED, order="hybrid", tasks={"creative_writing": "cloud"}))
    assert table.names(asking("h", "A poem.", metadata={"task": "creative_writing"})) == CLOUD_FIRST


def test_task_may_name_a_candidate() -> None:
    table = Table(Route("t", LISTED, tasks={"translation": "other/small"}))
    assert table.names(asking("t", task="translation"))[:2] == ["other/small", "cloud/big"]
    assert table.names(asking("t")) == list(LISTED)


def test_short_prompts_stay_here_though_the_cloud_is_preferred() -> None:
    table = Table(Route("s", LISTED, prefer="cloud", short=20))
    assert table.names(asking("s", "Good morning!")) == LOCAL_FIRST
    assert table.names(asking("s", "Good morning! " * 40)) == CLOUD_FIRST


def test_local_first_and_cloud_first_are_preferences_of_any_route() -> None:
    table = Table(Route("l", LISTED, prefer="local"), Route("c", LISTED, prefer="cloud"))
    assert table.names(asking("l")) == LOCAL_FIRST
    assert table.names(asking("c")) == CLOUD_FIRST


def test_list_without_rules_is_taken_literally() -> None:
    table = Table(Route("o", ("offline", "cloud/big", "ollama/qwen")))
    assert table.names(asking("o")) == ["offline", "cloud/big", "ollama/qwen"]


def test_private_route_leaves_out_whatever_is_not_on_this_machine() -> None:
    table = Table(Route("p", (*LISTED, "ollama/gpt-oss:120b-cloud"), private=True))
    assert table.names(asking("p")) == ["ollama/qwen", "here/gguf", "offline"]
    left_out = table.router.decide(asking("p")).left_out
    assert left_out == tuple(
        [LeftOut(name, "privacy") for name in ("cloud/big", "other/small", "ollama/gpt-oss:120b-cloud")]
    )


def test_private_route_does_not_follow_the_fallbacks_of_a_request_to_the_cloud() -> None:
    table = Table(Route("p", ("ollama/qwen",), private=True))
    assert table.names(asking("p", fallbacks=("cloud/big", "here/gguf", "auto"))) == [
        "ollama/qwen",
        "here/gguf",
        "offline",
    ]


def test_private_route_without_a_model_here_says_what_to_do() -> None:
    table = Table(Route("p", ("ollama/qwen", "cloud/big"), private=True), sources=(OFFLINE, ALL[1]))
    with pytest.raises(ModelNotFound, match=r"stays on this machine.*start a local model server"):
        table.names(asking("p"))


@pytest.mark.parametrize("wish", ["local", "Local", " LOCAL "])
def test_request_may_ask_for_privacy_itself(wish: str) -> None:
    table = Table()
    for request in (asking("auto", metadata={"privacy": wish}), asking("auto", privacy=wish)):
        assert table.names(request) == ["here/gguf", "ollama/qwen", "offline"]
    with pytest.raises(ModelNotFound):
        table.names(asking("cloud/big", privacy=wish))


@pytest.mark.parametrize(("header", "metadata"), [("any", "local"), ("local", "any"), ("", "local")])
def test_what_one_wish_for_privacy_asks_for_the_other_does_not_undo(header: str, metadata: str) -> None:
    with pytest.raises(ModelNotFound):
        Table().names(asking("cloud/big", privacy=header, metadata={"privacy": metadata}))


@pytest.mark.parametrize("wish", ["locla", "yes", 1, True, ["local"]])
def test_privacy_that_nobody_understands_is_refused_and_not_ignored(wish: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Table().names(asking("cloud/big", metadata={"privacy": wish}))
    assert refused.value.field == "metadata.privacy"


def test_deployment_elsewhere_of_a_server_here_is_left_out_alone() -> None:
    pair = source(
        "pair", default_model="m", deployments=(deployment("pair", "desk", here=True), deployment("pair", "rented"))
    )
    table = Table(sources=(pair,))
    assert sorted(table.deployments(asking("pair"))) == ["desk", "rented"]
    assert table.deployments(asking("pair", privacy="local")) == ["desk"]


ORDERS: tuple[Order, ...] = ("ordered", "balanced", "cheapest", "fastest", "best_rated", "hybrid")
NAMES = (
    "auto",
    "cloud",
    "cloud/big",
    "other/new",
    "ollama/qwen",
    "ollama/x:cloud",
    "here",
    "offline",
    "p",
    "q",
    "alias",
)


@given(
    order=st.sampled_from(ORDERS),
    listed=st.lists(st.sampled_from(NAMES[:8]), min_size=1, max_size=5).map(tuple),
    model=st.sampled_from(NAMES),
    fallbacks=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    prefer=st.sampled_from([None, "local", "cloud"]),
    told=st.sampled_from(["route", "metadata", "header"]),
    text=st.sampled_from(["hi", CODE, LONG]),
    task=st.sampled_from([None, "draw"]),
)
def test_nothing_private_ever_leaves_this_machine(
    order: Order,
    listed: tuple[str, ...],
    model: str,
    fallbacks: tuple[str, ...],
    prefer: None,
    told: str,
    text: str,
    task: str | None,
) -> None:
    rules = {"order": order, "prefer": prefer, "tasks": {"draw": "cloud"}, "long": 100, "hedge": 1.0}
    routes = (Route("p", listed, private=told == "route", **rules), Route("q", listed, **rules))  # pyright: ignore[reportArgumentType]
    table = Table(*routes, aliases={"alias": "p"})
    if told == "route":
        model = "alias" if model == "alias" else "p"
    request = asking(
        model,
        text,
        fallbacks=fallbacks,
        task=task,
        metadata={"privacy": "local"} if told == "metadata" else None,
        privacy="local" if told == "header" else None,
    )
    for _ in range(2):
        try:
            found = table.router.candidates(request)
        except CauceError:
            continue
        assert {candidate.provider.name for candidate in found} <= {"ollama", "here", "offline"}
        assert not any(candidate.model.endswith("cloud") for candidate in found)


def test_sources_that_come_and_go_change_what_a_name_stands_for() -> None:
    table = Table(Route("r", ("ollama/qwen", "cloud/big")))
    assert table.names(asking("r")) == ["ollama/qwen", "cloud/big"]
    table.router.remove("ollama")
    assert table.names(asking("r")) == ["cloud/big"]
    assert table.router.decide(asking("r")).left_out == (LeftOut("ollama/qwen", "away"),)
    table.router.add(ALL[3])
    assert table.names(asking("r")) == ["ollama/qwen", "cloud/big"]


def test_what_a_request_adds_is_not_remembered_for_the_next_one() -> None:
    table = Table()
    assert table.names(asking("cloud/big", fallbacks=("offline",))) == ["cloud/big", "offline"]
    assert table.names(asking("cloud/big")) == ["cloud/big"]
    assert table.names(asking("auto", privacy="local")) == ["here/gguf", "ollama/qwen", "offline"]
    assert table.names(asking("auto"))[0] == "cloud/big"


@pytest.mark.parametrize(
    ("request_", "score"),
    [
        (asking("m", "Hi."), (0.0, 0.01)),
        (asking("m", "What is this? And that? And those?"), (0.2, 0.23)),
        (asking("m", "```\nx\n```"), (0.3, 0.33)),
        (asking("m", "def f(x):\n    return x\nclass A:\n    pass"), (0.3, 0.33)),
        (asking("m", "one", "two", "three"), (0.1, 0.11)),
        (asking("m", *["turn"] * 9), (0.2, 0.21)),
        (asking("m", "word " * 2000), (0.3, 0.3)),
        (Request("m", ()), (0.0, 0.0)),
    ],
)
def test_complexity_adds_up_as_it_is_documented(request_: Request, score: tuple[float, float]) -> None:
    assert score[0] <= complexity(request_) <= score[1]


@given(st.text(), st.integers(1, 30))
def test_complexity_is_between_nought_and_one(text: str, turns: int) -> None:
    assert 0 <= complexity(asking("m", *[text] * turns)) <= 1
