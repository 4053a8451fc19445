"""Google's API at the door, and Gemini behind it, whatever stands on the other side."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.json import decode, encode

from cauce.server.gate import hash_key
from cauce.testing.upstream import Reply, Upstream
from tests.http import Response, ask, connection, within
from tests.serving import BREAKS, Served, serving, upstream_table

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "parts": [{"text": "Say hello."}]}]
TOOL = {"functionDeclarations": [{"name": "look", "parametersJsonSchema": {"type": "object"}}]}


def gemini_table(name: str, upstream: Upstream) -> str:
    return upstream_table(name, upstream.root, default_model="m").replace('"openai"', '"gemini"')


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def served(upstream: Upstream, other: Upstream) -> AsyncIterator[Served]:
    """`gem` speaks this wire, `gpt` the chat wire; `both` asks one after the other."""
    tables = gemini_table("gem", upstream) + upstream_table("gpt", other.base_url, default_model="m")
    both = '[models.both]\ncandidates = ["gem/m", "gpt/m"]\n'
    keys = f'[[auth.keys]]\nname = "web"\nhash = "{hash_key("secret")}"\n'
    async with serving(tables + both + keys, BREAKS) as running:
        yield running


async def generate(served: Served, model: str, verb: str = "generateContent", **body: Any) -> Response:
    path = f"/v1beta/models/{model}:{verb}"
    return await ask(served.port, "POST", path, {"contents": HELLO, **body}, {"x-goog-api-key": "secret"})


def parts(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for answer in answers for part in answer["candidates"][0]["content"].get("parts", ())]


@pytest.mark.parametrize("model", ["gem/m", "gpt/m"])
@pytest.mark.parametrize("form", ["plain", "events", "list"])
async def test_answer_with_tools_reads_the_same_from_both_wires_in_each_form(
    served: Served, upstream: Upstream, other: Upstream, model: str, form: str
) -> None:
    for behind in (upstream, other):
        behind.answers = [Reply(text="I look.", tool_calls=(("look", '{"x": 1}'), ("look", '{"x": 2}')))]
    verb = {"plain": "generateContent", "events": "streamGenerateContent?alt=sse", "list": "streamGenerateContent"}[
        form
    ]
    response = await generate(served, model, verb, tools=[TOOL])
    assert response.status == 200 and response.headers["x-cauce-model"] == model
    match form:
        case "plain":
            answers = [response.json()]
        case "events":
            answers = [decode(line[6:]) for line in response.body.split(b"\r\n") if line.startswith(b"data: ")]
        case _:
            assert response.headers["content-type"].startswith("application/json")
            answers = response.json()
    shown = parts(answers)
    assert "".join([part["text"] for part in shown if "text" in part]) == "I look."
    assert [part["functionCall"]["args"] for part in shown if "functionCall" in part] == [{"x": 1}, {"x": 2}]
    last = answers[-1]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert (last["usageMetadata"]["promptTokenCount"], last["usageMetadata"]["candidatesTokenCount"]) == (7, 5)


@pytest.mark.parametrize("key", [{"x-goog-api-key": "secret"}, {"authorization": "Bearer secret"}, None])
async def test_key_is_read_where_google_s_clients_put_it(served: Served, key: dict[str, str] | None) -> None:
    path = "/v1/models/gem/m:generateContent" + ("" if key else "?key=secret")
    assert (await ask(served.port, "POST", path, {"contents": HELLO}, key)).status == 200
    refused = await ask(served.port, "POST", "/v1/models/gem/m:generateContent", {"contents": HELLO})
    assert refused.status == 401 and refused.json()["error"]["status"] == "UNAUTHENTICATED"


async def test_upstream_is_asked_with_its_own_key_in_a_header(served: Served, upstream: Upstream) -> None:
    await generate(served, "gem/m")
    assert upstream.headers[0]["x-goog-api-key"] == "upstream-key"
    assert upstream.paths[0].startswith("/v1/models/m:generateContent") and "key=" not in upstream.paths[0]
    await generate(served, "gem/m-preview")
    assert upstream.paths[1].startswith("/v1beta/models/m-preview:")


async def test_model_in_the_path_may_be_encoded_and_hold_slashes(served: Served) -> None:
    for name in ("gem%2Fm", "gem/m", "both"):
        assert (await generate(served, name)).status == 200


async def test_fields_of_this_wire_reach_its_providers_and_not_others(
    served: Served, upstream: Upstream, other: Upstream
) -> None:
    own = {
        "safetySettings": [{"category": "c", "threshold": "t"}],
        "generationConfig": {"mediaResolution": "LOW", "topK": 3},
    }
    await generate(served, "gem/m", **own)
    assert upstream.requests[0]["safetySettings"] == own["safetySettings"]
    assert upstream.requests[0]["generationConfig"] == own["generationConfig"]
    await generate(served, "gpt/m", **own)
    assert "safetySettings" not in other.requests[0] and other.requests[0]["top_k"] == 3


async def test_tokens_are_counted_by_the_provider_or_estimated(served: Served) -> None:
    exact = await generate(served, "gem/m", "countTokens")
    assert exact.status == 200 and "x-cauce-estimated" not in exact.headers and exact.json()["totalTokens"] > 0
    estimated = await generate(served, "gpt/m", "countTokens")
    assert estimated.headers["x-cauce-estimated"] == "true" and estimated.json()["totalTokens"] > 0


async def test_texts_become_vectors_one_or_many(served: Served, upstream: Upstream) -> None:
    content = {"parts": [{"text": "a river"}]}
    headers = {"x-goog-api-key": "secret"}
    one = await ask(served.port, "POST", "/v1beta/models/gem/m:embedContent", {"content": content}, headers)
    assert one.json()["embedding"]["values"]
    asked = {"model": "models/gem/m", "content": content, "outputDimensionality": 3, "taskType": "RETRIEVAL_QUERY"}
    path = "/v1beta/models/gem/m:batchEmbedContents"
    many = await ask(served.port, "POST", path, {"requests": [asked, asked]}, headers)
    assert len(many.json()["embeddings"]) == 2
    assert upstream.requests[-1]["requests"][0]["outputDimensionality"] == 3
    assert upstream.requests[-1]["requests"][0]["taskType"] == "RETRIEVAL_QUERY"


async def test_models_are_listed_in_google_s_shape(served: Served) -> None:
    headers = {"x-goog-api-key": "secret"}
    for path in ("/v1beta/models", "/v1/models"):
        names = [model["name"] for model in (await ask(served.port, "GET", path, headers=headers)).json()["models"]]
        assert "models/gem/m" in names and "models/auto" in names
    assert (await ask(served.port, "GET", "/v1beta/models/both", headers=headers)).json()["name"] == "models/both"
    missing = await ask(served.port, "GET", "/v1beta/models/none", headers=headers)
    assert missing.status == 404 and missing.json()["error"]["status"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1beta/models/gem/m", 404),
        ("/v1beta/models/gem/m:fly", 404),
        ("/v1beta/models/none:generateContent", 404),
        ("/v1beta/models/gem/m:generateContent", 400),
    ],
)
async def test_mistakes_are_told_in_google_s_shape(served: Served, path: str, status: int) -> None:
    contents = HELLO if "none" in path else []
    response = await ask(served.port, "POST", path, {"contents": contents}, {"x-goog-api-key": "secret"})
    assert response.status == status
    assert response.json()["error"]["code"] == status and response.json()["error"]["message"]


@pytest.mark.parametrize("listed", [False, True])
async def test_stream_that_breaks_ends_in_an_error_and_never_cleanly(
    served: Served, upstream: Upstream, listed: bool
) -> None:
    upstream.answers = [Reply(text="one two three", cut_after=2)]
    response = await generate(served, "gem/m", "streamGenerateContent" if listed else "streamGenerateContent?alt=sse")
    last = response.json()[-1] if listed else decode(response.body.rsplit(b"data: ", 1)[1])
    assert last["error"]["status"] == "UNAVAILABLE" and "broke" in last["error"]["message"]


@pytest.mark.parametrize("listed", [False, True])
async def test_silence_is_filled_with_what_google_s_clients_read_over(upstream: Upstream, listed: bool) -> None:
    """They take a comment for JSON, or drop the event it stands before."""
    gate = asyncio.Semaphore(0)
    upstream.answers = [Reply(text="one two", gate=gate)]
    quick = "[streams]\nheartbeat = 0.02\nhold_headers = 0.02\n"
    async with serving(gemini_table("gem", upstream) + quick) as served, connection(served.port) as client:
        path = "/v1beta/models/gem/m:streamGenerateContent" + ("" if listed else "?alt=sse")
        await client.send("POST", path, encode({"contents": HELLO}))
        await within(client.head())
        body = b""
        for _ in range(2):
            body += await within(client.chunk())
        assert body.strip() == b""
        for _ in range(4):
            gate.release()
        while chunk := await within(client.chunk()):
            body += chunk
    lines = [line for line in body.split(b"\r\n") if line.strip()]
    answers = decode(body) if listed else [decode(line.removeprefix(b"data: ")) for line in lines]
    assert "".join([part["text"] for part in parts(answers)]) == "one two"


async def test_upstream_that_is_overloaded_before_its_first_word_is_passed_over(
    served: Served, upstream: Upstream
) -> None:
    upstream.answers = [Reply(status=503, error={"code": 503, "message": "busy", "status": "UNAVAILABLE"})]
    response = await generate(served, "both")
    assert response.status == 200 and response.headers["x-cauce-model"] == "gpt/m"


async def test_answer_that_its_model_interrupts_goes_on_by_itself(served: Served, upstream: Upstream) -> None:
    def body(text: str, reason: str, **more: Any) -> bytes:
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": reason}
        usage = {"promptTokenCount": 5, "candidatesTokenCount": 1}
        return encode({"candidates": [candidate], "usageMetadata": usage, **more})

    upstream.answers = [Reply(raw=body("Hel", "CONTINUATION", continuationToken="t")), Reply(raw=body("lo", "STOP"))]
    response = await generate(served, "gem/m")
    assert parts([response.json()]) == [{"text": "Hello"}]
    assert upstream.requests[1]["continuationToken"] == "t"
    assert response.json()["usageMetadata"]["totalTokenCount"] == 12


async def test_answer_that_never_ends_is_given_up(served: Served, upstream: Upstream) -> None:
    candidate = {"content": {"parts": [{"text": "again"}]}, "finishReason": "CONTINUATION"}
    upstream.answers = [Reply(raw=encode({"candidates": [candidate], "continuationToken": "t"}))]
    response = await generate(served, "gem/m")
    assert response.status == 502 and len(upstream.requests) == 9


async def test_image_by_address_is_fetched_only_where_it_may_be(served: Served, upstream: Upstream) -> None:
    image = {"fileData": {"fileUri": f"{upstream.root}/image.png", "mimeType": "image/png"}}
    response = await generate(served, "gem/m", contents=[{"role": "user", "parts": [{"text": "?"}, image]}])
    assert response.status == 400 and "messages[0].content[1]" in response.json()["error"]["message"]
    kept = {"fileData": {"fileUri": "https://www.youtube.com/watch?v=x", "mimeType": "video/mp4"}}
    response = await generate(served, "gem/m", contents=[{"role": "user", "parts": [{"text": "?"}, kept]}])
    assert response.status == 200 and upstream.requests[-1]["contents"][0]["parts"][1] == kept


async def test_client_that_leaves_closes_the_call_to_gemini(served: Served, upstream: Upstream) -> None:
    upstream.answers = [Reply(text="one two three", stall_after=1)]
    async with connection(served.port) as client:
        body = encode({"contents": HELLO})
        path = "/v1beta/models/gem/m:streamGenerateContent?alt=sse"
        await client.send("POST", path, body, {"x-goog-api-key": "secret"})
        await client.head()
        await client.until(b"one")
        client.abort()
        await within(upstream.closed.wait())
