"""JSON Schemas as each kind of upstream takes them: a pure function and profiles as data.

from cauce.wire.schema import OPENAI_STRICT, asked
schema, strict = asked(response_format.schema, response_format.strict, OPENAI_STRICT)
"""

from cauce.wire.schema.clean import Cleaned, asked, clean
from cauce.wire.schema.profile import (
    ANTHROPIC,
    ANTHROPIC_TOOLS,
    GEMINI_JSON,
    GEMINI_RESTRICTED,
    GRAMMAR,
    OPENAI_STRICT,
    Profile,
)

__all__ = [
    "ANTHROPIC",
    "ANTHROPIC_TOOLS",
    "GEMINI_JSON",
    "GEMINI_RESTRICTED",
    "GRAMMAR",
    "OPENAI_STRICT",
    "Cleaned",
    "Profile",
    "asked",
    "clean",
]
