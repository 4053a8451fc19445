"""Our figures against what providers really reported: costs, estimated tokens before and after learning, exact counts."""

import json
import math
import statistics
from typing import Any

import pytest

from cauce.catalogue.packaged import PackagedCatalogue
from cauce.domain.errors import InvalidRequest
from cauce.domain.price import cost
from cauce.domain.request import Request
from cauce.domain.tokens import is_text
from cauce.domain.usage import Usage
from cauce.engine.estimator import Estimator
from cauce.tokenizers.openai import Vocabularies, installed
from cauce.wire.anthropic_messages.request import parse_request as parse_messages
from cauce.wire.anthropic_messages.usage import parse_usage as messages_usage
from cauce.wire.gemini.request import parse_request as parse_gemini
from cauce.wire.gemini.usage import parse_usage as gemini_usage
from cauce.wire.openai_chat.request import parse_request as parse_chat
from cauce.wire.openai_chat.usage import parse_usage as chat_usage
from cauce.wire.openai_responses.request import parse_request as parse_responses
from cauce.wire.openai_responses.usage import parse_usage as responses_usage
from tests.recordings.replay import DATA, listed, parameters

CHATS = ("chat", "messages", "generateContent", "streamGenerateContent", "responses")
NO_RECORDINGS = f"no recordings in {DATA}: make test-recordings DATA=DIR"
USAGES = {"chat": chat_usage, "messages": messages_usage, "responses": responses_usage}


def asked(recording: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((DATA / recording["request_file"]).read_bytes())
    return raw


def parsed(recording: dict[str, Any]) -> Request:
    body = (DATA / recording["request_file"]).read_bytes()
    match recording["api"]:
        case "chat":
            return parse_chat(body)
        case "messages":
            return parse_messages(body, {})
        case "responses":
            return parse_responses(body)
        case _:
            return parse_gemini(body, "m", stream=False)


def reported(recording: dict[str, Any]) -> Usage | None:
    raw = (recording["expected"] or {}).get("usage")
    return USAGES.get(recording["api"], gemini_usage)(raw) if raw else None


def comparable() -> list[tuple[str, Request, Usage]]:
    """Recorded requests of text and functions, each with its model's name and the usage that was reported for it."""
    found: list[tuple[str, Request, Usage]] = []
    for recording in listed(*CHATS):
        usage = reported(recording)
        if recording["status"] != 200 or not recording["request_file"] or usage is None or usage.input_tokens == 0:
            continue
        try:
            request = parsed(recording)
        except InvalidRequest:
            # What only the provider itself understands.
            continue
        if is_text(request) and "server_tool_use_details" not in str(recording["expected"]["usage"]):
            found.append((f"{recording['host']}/{recording['expected']['model']}", request, usage))
    return found


@pytest.mark.parametrize("recording", parameters("chat"))
def test_costs_that_openrouter_reported_are_those_of_the_catalogue(recording: dict[str, Any]) -> None:
    usage = reported(recording)
    raw = (recording["expected"] or {}).get("usage") or {}
    if usage is None or usage.cost_source != "reported" or recording["host"] != "openrouter.ai":
        pytest.skip("no cost was reported")
    if "server_tool_use_details" in raw:
        pytest.skip("a web search was paid for as well")
    catalogue = PackagedCatalogue()
    # OpenRouter may answer with another model than the one asked, and no longer lists all of these: its maker does.
    maker, _, name = recording["expected"]["model"].partition("/")
    prices = catalogue.facts("up", "openrouter", f"{maker}/{name}").prices or catalogue.facts("up", maker, name).prices
    assert prices is not None
    assert cost(usage, prices) == pytest.approx(usage.cost, rel=1e-9)


def errors(requests: list[tuple[str, Request, Usage]], estimator: Estimator) -> list[float]:
    """How far each estimate is off, as a share of what was reported."""
    return [
        abs(estimator.estimate(request, model) - usage.input_tokens) / usage.input_tokens
        for model, request, usage in requests
    ]


def kind(request: Request) -> tuple[bool, bool]:
    return bool(request.tools), request.response_format is not None


def test_estimates_come_closer_once_a_model_has_answered_such_requests() -> None:
    requests = comparable()
    if not requests:
        pytest.skip(NO_RECORDINGS)
    cold: list[float] = []
    warm: list[float] = []
    # Each request is estimated with what all others of its model have taught, if one of them is of its kind.
    for left_out, (model, request, usage) in enumerate(requests):
        others = [one for place, one in enumerate(requests) if place != left_out and one[0] == model]
        if any([kind(other) == kind(request) for _, other, _ in others]):
            estimator = Estimator()
            for _, other, told in others:
                estimator.learn(other, model, told)
            cold += errors([(model, request, usage)], Estimator())
            warm += errors([(model, request, usage)], estimator)
    print(
        f"\n{len(cold)} requests: median error before {statistics.median(cold):.0%}, after {statistics.median(warm):.0%}"
    )
    assert statistics.median(warm) < 0.25 < statistics.median(cold) < 0.35


def test_plain_text_is_estimated_closely_before_anything_is_learned() -> None:
    requests = [one for one in comparable() if kind(one[1]) == (False, False)]
    if not requests:
        pytest.skip(NO_RECORDINGS)
    cold = errors(requests, Estimator())
    print(f"\n{len(requests)} requests of plain text: median error {statistics.median(cold):.0%}")
    assert statistics.median(cold) < 0.30


@pytest.mark.anyio
@pytest.mark.parametrize("recording", parameters("chat"))
async def test_exact_counts_are_what_openai_reported(recording: dict[str, Any]) -> None:
    if not installed():
        pytest.skip("the extra `tokens` is not installed")
    usage = reported(recording)
    if not recording["request_file"] or usage is None or recording["status"] != 200:
        pytest.skip("no request, or no usage")
    counted = await Vocabularies().count(parsed(recording), asked(recording)["model"])
    if counted is None:
        pytest.skip("not a text for a model of OpenAI alone")
    assert counted == usage.input_tokens


def test_factor_of_a_model_is_found_from_its_answers() -> None:
    requests = comparable()
    if not requests:
        pytest.skip(NO_RECORDINGS)
    estimator = Estimator()
    for model, request, usage in requests:
        estimator.learn(request, model, usage)
    assert all(math.isfinite(error) for error in errors(requests, estimator))
