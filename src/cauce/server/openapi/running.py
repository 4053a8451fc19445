"""Endpoints for whoever runs the server."""

from typing import Any

from cauce.engine.routing.explain import Explanation
from cauce.server.openapi.operation import described, json_of
from cauce.server.routes.health import HealthBody
from cauce.wire.native.request import MessageRequestBody

BODIES = (HealthBody, Explanation)


def operations() -> dict[str, Any]:
    text = {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    plain = {"description": "How it stands.", "content": {"application/json": {"schema": {"type": "object"}}}}
    probe = {
        "name": "probe",
        "in": "query",
        "schema": {"type": "string"},
        "description": "Ask this model for one token.",
    }
    health = described("How the server stands", "", answers={200: json_of(HealthBody), 503: json_of(HealthBody)})
    tokens = {
        "name": "tokens",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        "description": "To be taken for the length of the prompt.",
    }
    explain = described(
        "Where a request would go, and why",
        "A dry run: nobody is asked, nothing is sent.",
        body=MessageRequestBody,
        answers={200: json_of(Explanation)},
    )
    return {
        "/admin/route/explain": {"post": {**explain, "parameters": [tokens]}},
        "/health": {"get": {**health, "parameters": [probe]}},
        "/health/live": {"get": described("Is the process alive", "", answers={200: plain})},
        "/health/ready": {"get": described("Should requests be sent here", "", answers={200: plain, 503: plain})},
        "/metrics": {"get": described("Figures for Prometheus", "", answers={200: text})},
    }
