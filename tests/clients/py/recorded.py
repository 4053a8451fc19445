"""What the SDKs of Anthropic and Google make of an answer, as JSON: the whole message, but for ids and the model's name."""

from types import SimpleNamespace
from typing import Any

import anthropic
from google import genai
from worker import case, serve

_OURS = frozenset({"id", "model", "sdk_http_response", "model_version", "response_id", "container"})


def _told(value: Any) -> Any:
    """`value` without what is absent, and without names that Cauce gives itself."""
    if isinstance(value, dict):
        return {name: _told(item) for name, item in value.items() if item is not None and name not in _OURS}
    return [_told(item) for item in value] if isinstance(value, list) else value


@case
def anthropic_message(asked: SimpleNamespace) -> Any:
    """A message, plain or put together from its events by the SDK."""
    client = anthropic.Anthropic(base_url=asked.base_url, api_key=asked.api_key, max_retries=0)
    options: dict[str, Any] = {
        "model": asked.model,
        "max_tokens": 2048,
        "messages": [{"role": "user", "content": "hi"}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    if not asked.stream:
        return _told(client.beta.messages.create(**options).model_dump(mode="json"))
    with client.beta.messages.stream(**options) as stream:
        return _told(stream.get_final_message().model_dump(mode="json"))


@case
def gemini_answer(asked: SimpleNamespace) -> Any:
    """An answer, plain or joined from its chunks as readers of this API join them: texts of one kind that follow each other."""
    client = genai.Client(api_key=asked.api_key, http_options={"base_url": asked.base_url})
    options = {
        "model": asked.model,
        "contents": "hi",
        "config": {"thinking_config": {"include_thoughts": True}},
    }
    models = client.models
    answers = models.generate_content_stream(**options) if asked.stream else [models.generate_content(**options)]
    candidates: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for answer in [_told(answer.model_dump(mode="json")) for answer in answers]:
        for candidate in answer.pop("candidates", []):
            known = candidates.setdefault(str(candidate.pop("index", 0)), {"parts": []})
            _join(known["parts"], candidate.pop("content", {}).get("parts", []))
            known.update(candidate)
        whole.update(answer)
    return {**whole, "candidates": candidates}


def _join(parts: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    for part in more:
        last = parts[-1] if parts else {}
        plain = {"text", "thought"}
        if (
            "text" in part
            and "text" in last
            and part.keys() | last.keys() <= plain
            and part.get("thought") == last.get("thought")
        ):
            last["text"] += part["text"]
        elif part != {"text": ""}:
            parts.append(part)


serve()
