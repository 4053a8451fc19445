"""`instructor` over the OpenAI SDK or the Anthropic one (`api`): typed answers."""

from types import SimpleNamespace
from typing import Any

import given
import instructor
import worker
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": given.ASK_ANIMAL}]


class Animal(BaseModel):
    name: str
    legs: int


def client(asked: SimpleNamespace, *, tools: bool) -> Any:
    if asked.api == "anthropic":
        sdk = Anthropic(base_url=asked.base_url, api_key=asked.api_key, max_retries=0)
        mode = instructor.Mode.TOOLS if tools else instructor.Mode.JSON_SCHEMA
        return instructor.from_anthropic(sdk, mode=mode)
    mode = instructor.Mode.TOOLS if tools else instructor.Mode.JSON_SCHEMA
    sdk = OpenAI(base_url=f"{asked.base_url}/v1", api_key=asked.api_key, max_retries=0)
    return instructor.from_openai(sdk, mode=mode)


def request(asked: SimpleNamespace) -> dict[str, Any]:
    return {"model": asked.model, "messages": MESSAGES, "max_retries": 0, "max_tokens": 500}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    done = client(asked, tools=False).chat.completions.create(response_model=Animal, **request(asked))
    return {"value": done.model_dump()}


@worker.case
def structured_tool(asked: SimpleNamespace) -> Any:
    done = client(asked, tools=True).chat.completions.create(response_model=Animal, **request(asked))
    return {"value": done.model_dump()}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    parts = client(asked, tools=False).chat.completions.create_partial(response_model=Animal, **request(asked))
    return {"value": list(parts)[-1].model_dump()}


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: structured_tool(asked))


if __name__ == "__main__":
    worker.serve()
