"""The document."""

from typing import Any

import msgspec

from cauce import __version__
from cauce.server.openapi import conversations, money, openai, others, own, pages, running
from cauce.server.openapi.operation import REF

_SECTIONS = (own, conversations, pages, openai, others, money, running)


def document() -> dict[str, Any]:
    """The document, as JSON values."""
    bodies = [body for section in _SECTIONS for body in section.BODIES]
    _, schemas = msgspec.json.schema_components(bodies, ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cauce",
            "version": __version__,
            "description": "The LLM application server: any client can talk to it, any model can answer.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **own.native(),
            **own.streams(),
            **conversations.conversations(),
            **own.users(),
            **pages.chats(),
            **openai.openai(),
            **openai.responses_api(),
            **others.anthropic(),
            **others.gemini(),
            **money.usage(),
            **running.operations(),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "cauce_key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }
