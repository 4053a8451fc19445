"""Endpoints for whoever runs the server."""

from typing import Any

from cauce.server.openapi.operation import described, json_of
from cauce.server.routes.health import HealthBody

BODIES = (HealthBody,)


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
    return {
        "/health": {"get": {**health, "parameters": [probe]}},
        "/health/live": {"get": described("Is the process alive", "", answers={200: plain})},
        "/health/ready": {"get": described("Should requests be sent here", "", answers={200: plain, 503: plain})},
        "/metrics": {"get": described("Figures for Prometheus", "", answers={200: text})},
    }
