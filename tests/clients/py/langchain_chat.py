"""`langchain-openai`: chat models over Chat Completions or Responses (`api`), and embeddings."""

from types import SimpleNamespace
from typing import Any

import given
import worker
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

ROLES = {"user": HumanMessage, "assistant": AIMessage}
TOOL = {
    "type": "function",
    "function": {"name": given.WEATHER, "description": given.WEATHER_TELLS, "parameters": given.WEATHER_TAKES},
}


class Animal(BaseModel):
    """An animal."""

    name: str
    legs: int


def model(asked: SimpleNamespace, **more: Any) -> ChatOpenAI:
    if asked.api == "responses":
        more = {"use_responses_api": True, "store": False, **more}
    return ChatOpenAI(
        base_url=f"{asked.base_url}/v1",
        api_key=asked.api_key,
        model=asked.model,
        max_retries=0,
        timeout=20,
        stream_usage=True,
        **more,
    )


def thinking(asked: SimpleNamespace) -> dict[str, Any]:
    if asked.api == "responses":
        hidden = ["reasoning.encrypted_content"]
        return {"reasoning": {"effort": "high", "summary": "auto"}, "include": hidden}
    return {"reasoning_effort": "high"}


def joined(chunks: Any) -> Any:
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def thought(message: Any) -> str:
    return "".join(block.get("reasoning", "") for block in message.content_blocks if block["type"] == "reasoning")


def counted(message: Any) -> dict[str, Any]:
    told = message.usage_metadata
    return {
        "input": told["input_tokens"],
        "output": told["output_tokens"],
        "total": told["total_tokens"],
        "cached": told["input_token_details"].get("cache_read"),
        "reasoning": told["output_token_details"].get("reasoning"),
    }


@worker.case
def plain(asked: SimpleNamespace) -> Any:
    return {"text": model(asked).invoke(given.SAY_HELLO).text}


@worker.case
def stream(asked: SimpleNamespace) -> Any:
    return {"text": joined(model(asked).stream(given.SAY_HELLO)).text}


@worker.case
def turns(asked: SimpleNamespace) -> Any:
    messages = [SystemMessage(given.SYSTEM), *(ROLES[role](text) for role, text in given.TURNS)]
    return {"text": model(asked).invoke(messages).text}


@worker.case
def tools(asked: SimpleNamespace, *, streamed: bool = False, **more: Any) -> Any:
    able = model(asked, **more).bind_tools([TOOL])
    messages: list[Any] = [HumanMessage(given.ASK_WEATHER)]
    calls: list[Any] = []
    while True:
        message = joined(able.stream(messages)) if streamed else able.invoke(messages)
        if not message.tool_calls:
            return {"calls": calls, "text": message.text}
        messages.append(message)
        for call in message.tool_calls:
            calls.append([call["name"], call["args"]])
            messages.append(ToolMessage(given.SKY, tool_call_id=call["id"]))


@worker.case
def tools_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True)


@worker.case
def signed(asked: SimpleNamespace) -> Any:
    return tools(asked, **thinking(asked))


@worker.case
def signed_stream(asked: SimpleNamespace) -> Any:
    return tools(asked, streamed=True, **thinking(asked))


@worker.case
def image(asked: SimpleNamespace) -> Any:
    picture = {"type": "image", "base64": given.PNG_BASE64, "mime_type": "image/png"}
    return {"text": model(asked).invoke([HumanMessage([{"type": "text", "text": given.LOOK}, picture])]).text}


@worker.case
def structured(asked: SimpleNamespace) -> Any:
    able = model(asked).with_structured_output(Animal, method="json_schema")
    return {"value": able.invoke(given.ASK_ANIMAL).model_dump()}


@worker.case
def structured_stream(asked: SimpleNamespace) -> Any:
    able = model(asked).with_structured_output(Animal, method="json_schema")
    return {"value": list(able.stream(given.ASK_ANIMAL))[-1].model_dump()}


@worker.case
def structured_tool(asked: SimpleNamespace) -> Any:
    able = model(asked).with_structured_output(Animal, method="function_calling")
    return {"value": able.invoke(given.ASK_ANIMAL).model_dump()}


@worker.case
def reasoning(asked: SimpleNamespace) -> Any:
    message = model(asked, **thinking(asked)).invoke(given.SAY_HELLO)
    return {"text": message.text, "reasoning": thought(message)}


@worker.case
def reasoning_stream(asked: SimpleNamespace) -> Any:
    message = joined(model(asked, **thinking(asked)).stream(given.SAY_HELLO))
    return {"text": message.text, "reasoning": thought(message)}


@worker.case
def usage(asked: SimpleNamespace) -> Any:
    return counted(model(asked).invoke(given.SAY_HELLO))


@worker.case
def usage_stream(asked: SimpleNamespace) -> Any:
    return counted(joined(model(asked).stream(given.SAY_HELLO)))


@worker.case
def error(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: model(asked).invoke(given.SAY_HELLO))


@worker.case
def error_stream(asked: SimpleNamespace) -> Any:
    return worker.refused(lambda: joined(model(asked).stream(given.SAY_HELLO)))


@worker.case
def broken(asked: SimpleNamespace) -> Any:
    seen: list[str] = []

    def read() -> None:
        seen.extend(chunk.text for chunk in model(asked).stream(given.SAY_HELLO))

    return {**worker.refused(read), "text": "".join(seen)}


@worker.case
def cancel(asked: SimpleNamespace) -> Any:
    seen = ""
    chunks = model(asked).stream(given.SAY_HELLO)
    for chunk in chunks:
        seen += chunk.text
        if seen == "a b ":
            break
    chunks.close()
    return {"text": seen}


@worker.case
def embeddings(asked: SimpleNamespace) -> Any:
    # Token counting would fetch OpenAI's vocabulary.
    made = OpenAIEmbeddings(
        base_url=f"{asked.base_url}/v1",
        api_key=asked.api_key,
        model=asked.model,
        max_retries=0,
        check_embedding_ctx_length=False,
    )
    return {"vectors": made.embed_documents(list(given.INPUTS))}


if __name__ == "__main__":
    worker.serve()
