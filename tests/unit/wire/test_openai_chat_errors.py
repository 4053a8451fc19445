"""Errors as servers of the chat wire really send them: one row per shape, and what each means for the call it ended."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cauce.domain.errors import ProviderFailure
from cauce.wire.openai_chat.decode import ChatDecoder
from cauce.wire.openai_chat.delays import duration, said_delay, told_delay
from cauce.wire.openai_chat.errors import refused


def openai(message: str, kind: str | None, code: Any, param: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


INVALID = "invalid_request_error"
TPM = "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 29000, Requested 3000. "

# server, status, headers, body; class, code, seconds to wait
ROWS: list[tuple[str, int, dict[str, str], Any, str, str, float | None]] = [
    (
        "openai: field",
        400,
        {},
        openai("Unknown parameter: 'x'.", INVALID, "unknown_parameter", "x"),
        "bad_request",
        "invalid_request",
        None,
    ),
    (
        "openai: too long",
        400,
        {},
        openai(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
            INVALID,
            "context_length_exceeded",
            "messages",
        ),
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "openai: key",
        401,
        {},
        openai("Incorrect API key provided: sk-1.", INVALID, "invalid_api_key"),
        "auth",
        "provider_error",
        None,
    ),
    (
        "openai: region",
        403,
        {},
        openai(
            "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"
        ),
        "auth",
        "provider_error",
        None,
    ),
    ("a page of a filter", 403, {}, b"<html>Request blocked.</html>", "transient", "provider_error", None),
    (
        "xai: key",
        403,
        {},
        {"code": "The caller does not have permission", "error": "Your API key is disabled."},
        "auth",
        "provider_error",
        None,
    ),
    (
        "openai: model",
        404,
        {},
        openai("The model `x` does not exist or you do not have access to it.", INVALID, "model_not_found"),
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "openai: model by code on 400",
        400,
        {},
        openai("No such thing.", INVALID, "model_not_found"),
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "openai: per minute",
        429,
        {},
        openai(TPM + "Please try again in 4.5s.", "tokens", "rate_limit_exceeded"),
        "rate_limited",
        "rate_limited",
        4.5,
    ),
    (
        "openai: per minute, header",
        429,
        {"retry-after-ms": "1500", "retry-after": "2"},
        openai(TPM + "Please try again in 4s.", "tokens", "rate_limit_exceeded"),
        "rate_limited",
        "rate_limited",
        1.5,
    ),
    (
        "openai: used up, resets",
        429,
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "6m0s",
            "x-ratelimit-remaining-tokens": "10",
            "x-ratelimit-reset-tokens": "9h",
        },
        openai("Slow.", "requests", "rate_limit_exceeded"),
        "rate_limited",
        "rate_limited",
        360.0,
    ),
    (
        "openai: per day",
        429,
        {},
        openai(
            "Rate limit reached for o1 on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            "requests",
            "rate_limit_exceeded",
        ),
        "quota",
        "quota_exceeded",
        432.0,
    ),
    (
        "openai: request larger than the limit",
        429,
        {},
        openai(
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "openai: money",
        429,
        {},
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "openai: credit",
        429,
        {},
        openai("Your credit balance is exhausted.", "insufficient_quota", "credit_balance_exhausted"),
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "openai: usage policy",
        400,
        {},
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            INVALID,
            "invalid_prompt",
        ),
        "content_filter",
        "invalid_request",
        None,
    ),
    (
        "openai: broken",
        500,
        {},
        openai("The server had an error.", "server_error", None),
        "transient",
        "provider_error",
        None,
    ),
    (
        "openai: full, by its status",
        503,
        {},
        openai("The server had an error.", "server_error", None),
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "openai: full",
        503,
        {"retry-after": "7"},
        openai("Overloaded.", "service_unavailable_error", "server_is_overloaded"),
        "overloaded",
        "overloaded",
        7.0,
    ),
    ("openai: slow down", 503, {}, openai("Slow down.", None, "slow_down"), "overloaded", "overloaded", None),
    (
        "azure: filter",
        400,
        {},
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
                },
            }
        },
        "content_filter",
        "invalid_request",
        None,
    ),
    (
        "azure: deployment",
        404,
        {},
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "azure: address",
        404,
        {},
        {"error": {"code": "404", "message": "Resource not found"}},
        "transient",
        "provider_error",
        None,
    ),
    (
        "azure: key",
        401,
        {},
        {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}},
        "auth",
        "provider_error",
        None,
    ),
    (
        "azure: key, gateway",
        401,
        {},
        {"statusCode": 401, "message": "Unauthorized. Access token is missing."},
        "auth",
        "provider_error",
        None,
    ),
    (
        "azure: limit",
        429,
        {"x-ratelimit-reset-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded token rate limit. Please retry after 26 seconds.",
            }
        },
        "rate_limited",
        "rate_limited",
        26.0,
    ),
    (
        "openrouter: upstream's limit",
        429,
        {},
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {
                    "provider_name": "Google",
                    "raw": "x:free is temporarily rate-limited upstream. Please retry shortly.",
                },
            },
            "user_id": "u",
        },
        "rate_limited",
        "rate_limited",
        None,
    ),
    (
        "openrouter: upstream's words",
        400,
        {},
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {
                    "provider_name": "OpenAI",
                    "raw": '{"error": {"message": "This model\'s maximum context length is 10 tokens."}}',
                },
            }
        },
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "openrouter: per day",
        429,
        {},
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
            }
        },
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "openrouter: per minute",
        429,
        {},
        {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min."}},
        "rate_limited",
        "rate_limited",
        None,
    ),
    (
        "openrouter: money",
        402,
        {},
        {
            "error": {
                "code": 402,
                "message": "This request requires more credits, or fewer max_tokens.",
                "metadata": {"provider_name": None},
            }
        },
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "openrouter: wrapped twice",
        402,
        {},
        {"error": {"error": {"message": "More credits are required", "code": 402}, "code": 402}},
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "openrouter: key",
        401,
        {},
        {"error": {"message": "Missing Authentication header", "code": 401}},
        "auth",
        "provider_error",
        None,
    ),
    (
        "openrouter: moderation",
        403,
        {},
        {
            "error": {
                "code": 403,
                "message": "Input requires moderation",
                "metadata": {"reasons": ["violence"], "flagged_input": "…"},
            }
        },
        "content_filter",
        "invalid_request",
        None,
    ),
    (
        "openrouter: model",
        400,
        {},
        {"error": {"code": 400, "message": "nope/nope is not a valid model ID"}},
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "openrouter: nobody serves it",
        404,
        {},
        {"error": {"code": 404, "message": "No endpoints found for nope/nope."}},
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "openrouter: down",
        502,
        {},
        {"error": {"code": 502, "message": "Upstream error"}},
        "transient",
        "provider_error",
        None,
    ),
    (
        "groq: per minute",
        429,
        {"retry-after": "3"},
        openai(
            "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Used 5000, Requested 2000. Please try again in 10.2s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "rate_limited",
        "rate_limited",
        3.0,
    ),
    (
        "groq: per day",
        429,
        {},
        openai(
            "Rate limit reached for model `x` on tokens per day (TPD): Limit 100000, Used 99500, Requested 700. Please try again in 2m52.8s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "quota",
        "quota_exceeded",
        172.8,
    ),
    (
        "groq: too large",
        413,
        {},
        openai(
            "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "groq: call that was none",
        400,
        {},
        {
            "error": {
                "message": "Failed to call a function.",
                "type": INVALID,
                "code": "tool_use_failed",
                "failed_generation": "<f>",
            }
        },
        "transient",
        "provider_error",
        None,
    ),
    (
        "groq: capacity",
        498,
        {},
        openai("Flex tier capacity exceeded.", "flex_tier_capacity", None),
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "groq: retired",
        400,
        {},
        openai("The model `x` has been decommissioned.", INVALID, "model_decommissioned"),
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "mistral: limit",
        429,
        {},
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
            "raw_status_code": 429,
        },
        "rate_limited",
        "rate_limited",
        None,
    ),
    (
        "mistral: gateway's limit",
        429,
        {},
        {"message": "Requests rate limit exceeded"},
        "rate_limited",
        "rate_limited",
        None,
    ),
    (
        "mistral: capacity",
        429,
        {},
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "param": None,
            "code": "3505",
        },
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "mistral: model",
        400,
        {},
        {"object": "error", "message": "Invalid model: nope", "type": "invalid_model", "param": None, "code": "1500"},
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "mistral: fields",
        422,
        {},
        {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not permitted", "input": 1}
            ]
        },
        "bad_request",
        "invalid_request",
        None,
    ),
    (
        "mistral: fields, wrapped",
        422,
        {},
        {
            "object": "error",
            "message": {"detail": [{"loc": ["body", "x"], "msg": "Field required", "type": "missing"}]},
            "type": INVALID,
            "param": None,
            "code": None,
        },
        "bad_request",
        "invalid_request",
        None,
    ),
    ("mistral: key", 401, {}, {"detail": "Unauthorized"}, "auth", "provider_error", None),
    (
        "mistral: too long",
        400,
        {},
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "type": INVALID,
            "param": None,
            "code": "3051",
        },
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "deepseek: money",
        402,
        {},
        openai("Insufficient Balance", "unknown_error", "invalid_request_error"),
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "deepseek: key",
        401,
        {},
        openai("Authentication Fails (no such user)", "authentication_error", "invalid_request_error"),
        "auth",
        "provider_error",
        None,
    ),
    (
        "deepseek: model",
        400,
        {},
        openai("Model Not Exist", INVALID, "invalid_request_error"),
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "deepseek: too long",
        400,
        {},
        openai(
            "This model's maximum context length is 131072 tokens. However, you requested 200000 tokens",
            INVALID,
            "invalid_request_error",
        ),
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "deepseek: full",
        503,
        {},
        openai("Service is too busy.", "service_unavailable_error", "service_unavailable_error"),
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "xai: key",
        400,
        {},
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: na***ys. You can obtain an API key from the console.",
        },
        "auth",
        "provider_error",
        None,
    ),
    (
        "xai: model",
        404,
        {},
        {
            "code": "Some requested entity was not found",
            "error": "The model nope does not exist or your team does not have access to it.",
        },
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "xai: money",
        429,
        {},
        {
            "code": "Some resource has been exhausted",
            "error": "Your team has either used all available credits or reached its monthly spending limit.",
        },
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "xai: no credits yet",
        403,
        {},
        {
            "code": "The caller does not have permission",
            "error": "Your newly created team doesn't have any credits yet.",
        },
        "quota",
        "quota_exceeded",
        None,
    ),
    (
        "xai: filter",
        403,
        {},
        {
            "code": "The caller does not have permission",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_X",
        },
        "content_filter",
        "invalid_request",
        None,
    ),
    (
        "xai: body",
        422,
        {},
        b"Failed to deserialize the JSON body into the target type: messages[0]: missing field `content`",
        "bad_request",
        "invalid_request",
        None,
    ),
    (
        "ollama: model",
        404,
        {},
        {
            "error": {
                "message": 'model "x" not found, try pulling it first',
                "type": "not_found_error",
                "param": None,
                "code": None,
            }
        },
        "bad_request",
        "model_not_found",
        None,
    ),
    ("ollama: own API's shape", 404, {}, {"error": 'model "x" not found'}, "bad_request", "model_not_found", None),
    (
        "ollama: full",
        503,
        {},
        {"error": "server busy, please try again. maximum pending requests exceeded"},
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "ollama: memory",
        500,
        {},
        {
            "error": {
                "message": "model requires more system memory (8 GiB) than is available",
                "type": "api_error",
                "param": None,
                "code": None,
            }
        },
        "transient",
        "provider_error",
        None,
    ),
    (
        "llama.cpp: too long",
        400,
        {},
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 1407,
                "n_ctx": 256,
            }
        },
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    (
        "llama.cpp: loading",
        503,
        {},
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "overloaded",
        "overloaded",
        None,
    ),
    (
        "llama.cpp: key",
        401,
        {},
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        "auth",
        "provider_error",
        None,
    ),
    (
        "llama.cpp: cannot",
        501,
        {},
        {"error": {"code": 501, "message": "This server does not support embeddings.", "type": "not_supported_error"}},
        "bad_request",
        "invalid_request",
        None,
    ),
    (
        "vllm: model",
        404,
        {},
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "vllm: older shape, too long",
        400,
        {},
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        "bad_request",
        "context_length_exceeded",
        None,
    ),
    ("vllm: key", 401, {}, {"error": "Unauthorized"}, "auth", "provider_error", None),
    (
        "lm studio: nothing loaded",
        404,
        {},
        {
            "error": {
                "message": "No models loaded. Please load a model in the developer page.",
                "type": INVALID,
                "param": "model",
                "code": "model_not_found",
            }
        },
        "bad_request",
        "model_not_found",
        None,
    ),
    (
        "google: per minute",
        429,
        {},
        [
            {
                "error": {
                    "code": 429,
                    "message": "Quota exceeded.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46.5s"}],
                }
            }
        ],
        "rate_limited",
        "rate_limited",
        46.5,
    ),
    (
        "google: per day",
        429,
        {},
        [
            {
                "error": {
                    "code": 429,
                    "message": "Quota exceeded.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]},
                        {"retryDelay": "10s"},
                    ],
                }
            }
        ],
        "quota",
        "quota_exceeded",
        10.0,
    ),
    (
        "a proxy's page",
        524,
        {},
        b"<html><title>524: A timeout occurred</title></html>",
        "transient",
        "provider_error",
        None,
    ),
    ("an empty body", 502, {}, b"", "transient", "provider_error", None),
    ("an empty body, limit", 429, {"retry-after": "12"}, b"", "rate_limited", "rate_limited", 12.0),
    ("slow request", 408, {}, {"error": {"message": "Request timed out"}}, "transient", "provider_error", None),
    ("method", 405, {}, {"detail": "Method Not Allowed"}, "bad_request", "invalid_request", None),
]


@pytest.mark.parametrize(
    ("status", "headers", "body", "failure", "code", "wait"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_error_means_what_its_server_means(
    status: int, headers: dict[str, str], body: Any, failure: str, code: str, wait: float | None
) -> None:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    got = refused("up", status, headers, raw)
    assert (got.failure, got.code, got.upstream_status) == (failure, code, status)
    assert got.retry_after == pytest.approx(wait)


def test_message_holds_what_the_provider_behind_a_gateway_said() -> None:
    metadata = {"provider_name": "Google", "raw": "temporarily rate-limited upstream"}
    error = {"error": {"code": 429, "message": "Provider returned error", "metadata": metadata}}
    got = refused("up", 429, {}, msgspec.json.encode(error))
    assert got.message == "up: Provider returned error (Google: temporarily rate-limited upstream)"


def test_message_names_the_field_that_a_list_of_details_names() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not permitted"}]
    assert refused("up", 422, {}, msgspec.json.encode({"detail": detail})).message == (
        "up: body.x: Extra inputs are not permitted"
    )


@pytest.mark.parametrize(("word", "should"), [("true", True), ("false", False), ("", None)])
def test_upstreams_own_word_on_asking_again_is_kept(word: str, should: bool | None) -> None:
    headers = {"x-should-retry": word} if word else {}
    assert refused("up", 500, headers, b"{}").should_retry is should


def in_band() -> list[Any]:
    """The rows whose body tells the status too, as errors inside a stream must."""
    told = [row for row in ROWS if isinstance(row[3], dict) and isinstance(row[3].get("error"), dict)]
    return [pytest.param(row, id=row[0]) for row in told if isinstance(row[3]["error"].get("code"), int)]


@pytest.mark.parametrize("row", in_band())
def test_error_inside_a_stream_has_the_class_its_body_tells(row: Any) -> None:
    with pytest.raises(ProviderFailure) as caught:
        ChatDecoder("up").feed(b"data: " + msgspec.json.encode({"error": row[3]["error"]}) + b"\n\n")
    assert (caught.value.failure, caught.value.code) == (row[4], row[5])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("26 seconds", 26.0),
        ("2 minutes", 120.0),
        ("7.66", 7.66),
        ("250 milliseconds", 0.25),
        ("soon", None),
        ("", None),
    ],
)
def test_durations_are_read_however_they_are_written(text: str, seconds: float | None) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 1.2s. Visit the page.", 1.2),
        ("Please retry after 26 seconds.", 26.0),
        ("Please retry in 46.5s.", 46.5),
        ("Please try again in 7m12s.", 432.0),
        ("Please try again later.", None),
        ("Used 29000 tokens, 3 s ago", None),
    ],
)
def test_delay_in_a_message_is_read(message: str, seconds: float | None) -> None:
    assert said_delay(message) == pytest.approx(seconds)


def test_limit_that_is_not_used_up_says_nothing_about_waiting() -> None:
    headers = {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "59s"}
    assert told_delay(headers, "slow down") is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "detail", "metadata", "raw", "details", "loc", "msg"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(400, 599), values)
def test_no_body_ends_in_anything_but_a_failure(status: int, body: Any) -> None:
    assert isinstance(refused("up", status, {}, msgspec.json.encode(body)), ProviderFailure)


@given(st.binary(max_size=60))
def test_no_bytes_end_in_anything_but_a_failure(body: bytes) -> None:
    assert isinstance(refused("up", 500, {}, body), ProviderFailure)
