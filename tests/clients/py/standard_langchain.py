"""The standard tests of `langchain-tests`, for `langchain-openai`: `BASE_URL=… API=chat python -m pytest standard_langchain.py`."""

import os
from typing import Any

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

HERE = {"base_url": f"{os.environ['BASE_URL']}/v1", "api_key": os.environ["API_KEY"], "max_retries": 0}
WAY = {"use_responses_api": True, "store": False} if os.environ["API"] == "responses" else {}


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**HERE, **WAY, "model": os.environ["MODEL"], "stream_usage": True, "timeout": 20}

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return os.environ["JSON_MODE"] == "yes"

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return os.environ["OTHER_MODEL"]


if os.environ["EMBEDDINGS"] == "yes":

    class TestEmbeddings(EmbeddingsIntegrationTests):
        @property
        def embeddings_class(self) -> type[OpenAIEmbeddings]:
            return OpenAIEmbeddings

        @property
        def embedding_model_params(self) -> dict[str, Any]:
            # Token counting would fetch OpenAI's vocabulary.
            return {**HERE, "model": os.environ["MODEL"], "check_embedding_ctx_length": False}
