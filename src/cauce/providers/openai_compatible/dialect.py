"""How servers of one wire differ, as data. A vendor is an entry here, never a branch in code."""

from fnmatch import fnmatchcase
from typing import Any

import msgspec

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


class Dialect(msgspec.Struct, frozen=True):
    """Quirks of a server.

    `max_tokens_field` is its name for the bound on output; `drops` are fields it refuses; `model_drops` are fields that
    models matching a glob refuse (first match wins); `developer_role` tells whether it knows the role `developer`.
    """

    name: str
    max_tokens_field: str = "max_tokens"
    drops: tuple[str, ...] = ()
    model_drops: tuple[tuple[str, tuple[str, ...]], ...] = ()
    developer_role: bool = False
    stream_usage: bool = True
    default_model: str | None = None
    """The model to ask where nobody says which."""

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body`, a chat request in its standard form, as this server takes it. Changes `body`."""
        if self.max_tokens_field != "max_tokens" and "max_tokens" in body:
            body[self.max_tokens_field] = body.pop("max_tokens")
        for field in (*self.drops, *self._refused_by(body["model"])):
            body.pop(field, None)
        if not self.developer_role:
            for message in body["messages"]:
                if message["role"] == "developer":
                    message["role"] = "system"
        if not self.stream_usage:
            body.pop("stream_options", None)
        return body

    def _refused_by(self, model: str) -> tuple[str, ...]:
        for pattern, fields in self.model_drops:
            if fnmatchcase(model, pattern):
                return fields
        return ()


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("compatible"),
        # Reasoning models of OpenAI answer 400 to sampling parameters other than the default
        # (OpenAI, "Reasoning models": unsupported parameters).
        Dialect(
            "openai",
            max_tokens_field="max_completion_tokens",
            drops=("top_k",),
            model_drops=(("gpt-5-chat*", ()), ("gpt-5*", _SAMPLING), ("o[1-9]*", _SAMPLING)),
            developer_role=True,
            default_model="gpt-5-mini",
        ),
    )
}
