"""Reasoning on the chat wire: plain text in one field, and `reasoning_details`, a list, where signatures travel.

The list is OpenRouter's form (its API reference, "Reasoning tokens"): `reasoning.text` with `text` and `signature`,
`reasoning.summary` with `summary`, `reasoning.encrypted` with `data`. A signature of this wire is such an entry without its text,
as JSON: whoever gets it back finds everything in it. Signatures of other wires are shown sealed in entries of the same form.
"""

from typing import Any, cast

import msgspec

from cauce.domain.extra import Extra
from cauce.domain.message import ReasoningPart
from cauce.domain.request import ReasoningOptions
from cauce.domain.signature import Signature
from cauce.wire.openai_chat.extras import WIRE, own
from cauce.wire.signing import seal, unseal

TEXT = "reasoning.text"
SUMMARY = "reasoning.summary"
ENCRYPTED = "reasoning.encrypted"

_SAID = {TEXT: "text", SUMMARY: "summary"}
_PROOF = {TEXT: "signature", ENCRYPTED: "data"}

_encode = msgspec.json.Encoder(order="deterministic").encode
_decoder = msgspec.json.Decoder()


def said(detail: dict[str, Any]) -> str:
    """The words in an entry of `reasoning_details`."""
    text = detail.get(_SAID.get(str(detail.get("type")), ""))
    return text if isinstance(text, str) else ""


def signature_of(detail: dict[str, Any]) -> Signature | None:
    """The signature in an entry of `reasoning_details`, of whichever wire."""
    proof = detail.get(_PROOF.get(str(detail.get("type")), ""))
    if not isinstance(proof, str) or not proof:
        return None
    found = unseal(proof, WIRE)
    if found.wire != WIRE:
        return found
    bare = {name: value for name, value in detail.items() if name not in ("text", "summary")}
    identifier = detail.get("id")
    return Signature(WIRE, _encode(bare).decode(), identifier if isinstance(identifier, str) else None)


def signatures(details: Any) -> list[Signature]:
    """The signatures in what an upstream sent as `reasoning_details`."""
    return [signature for detail in _entries(details) if (signature := signature_of(detail)) is not None]


def words(details: Any) -> str:
    """The text in what an upstream sent as `reasoning_details`."""
    return "".join([said(detail) for detail in _entries(details)])


def _entries(details: Any) -> list[dict[str, Any]]:
    if not isinstance(details, list):
        return []
    return [cast(dict[str, Any], entry) for entry in cast(list[Any], details) if isinstance(entry, dict)]


def parse_details(details: list[dict[str, Any]], text: str) -> list[ReasoningPart]:
    """The reasoning an assistant's message holds: `details`, and `text` where they say nothing themselves.

    Clients that keep the pieces of a stream send back a list of pieces: those of one block are joined.
    """
    parts: list[ReasoningPart] = []
    open_block: dict[str, Any] | None = None
    for detail in details:
        if open_block is not None and _continues(open_block, detail):
            parts.pop()
            detail = {**open_block, **detail, "text": said(open_block) + said(detail)}
        parts.append(ReasoningPart(said(detail), signature_of(detail), _kept(detail)))
        open_block = detail if detail.get("type") == TEXT and not detail.get("signature") else None
    if text and not any([part.text for part in parts]):
        parts.insert(0, ReasoningPart(text))
    return parts


def _continues(before: dict[str, Any], detail: dict[str, Any]) -> bool:
    return detail.get("type") == TEXT and all([before.get(name) == detail.get(name) for name in ("index", "format")])


def _kept(detail: dict[str, Any]) -> Extra | None:
    """The entry itself, for upstreams of this wire; not one of ours around a signature of another wire."""
    signature = signature_of(detail)
    return Extra(WIRE, {"detail": detail}) if signature is None or signature.wire == WIRE else None


def render_details(parts: list[ReasoningPart]) -> list[dict[str, Any]]:
    """Reasoning for an upstream of this wire: entries it made itself, unchanged. Other reasoning has none."""
    details: list[dict[str, Any]] = []
    for part in parts:
        kept = own(part.extra).get("detail")
        if kept is not None:
            details.append(kept)
        elif part.signature is not None and part.signature.wire == WIRE:
            details.extend(_restored(part.text, part.signature.data))
    return details


def _restored(text: str, data: str) -> list[dict[str, Any]]:
    """The entries that a signature of this wire stands for, with their text."""
    try:
        detail = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return []
    if not isinstance(detail, dict):
        return []
    proof = cast(dict[str, Any], detail)
    if proof.get("type") == TEXT:
        return [{**proof, "text": text}]
    if not text:
        return [proof]
    place = {name: proof[name] for name in ("format", "index") if name in proof}
    return [{"type": SUMMARY, "summary": text, **place}, proof]


def shown(text: str, signature: Signature, index: int) -> dict[str, Any]:
    """Reasoning signed by another wire, as clients of this one are shown it. They send it back as it is."""
    sealed = seal(signature, WIRE)
    if text:
        return {"type": TEXT, "text": text, "signature": sealed, "index": index}
    return {"type": ENCRYPTED, "data": sealed, "index": index}


class ReasoningBody(msgspec.Struct):
    """How much to think: OpenRouter's form. `exclude`: think, but do not show it."""

    effort: str | None = None
    max_tokens: int | None = None
    exclude: bool | None = None
    enabled: bool | None = None


def parse_options(effort: str | None, body: ReasoningBody | None) -> ReasoningOptions | None:
    """The domain's options, from `reasoning_effort` and `reasoning`; the latter says more and wins."""
    if body is None:
        return ReasoningOptions(effort=effort) if effort else None
    visible = None if body.exclude is None else not body.exclude
    return ReasoningOptions(body.effort or effort, body.max_tokens, body.enabled, visible)


def render_options(options: ReasoningOptions) -> dict[str, Any]:
    """`options` as members of a request: the effort in OpenAI's field, all of it in OpenRouter's, where there is more to say."""
    fields: dict[str, Any] = {}
    if options.effort is not None:
        fields["reasoning_effort"] = options.effort
    told = {
        "effort": options.effort,
        "max_tokens": options.budget_tokens,
        "enabled": options.enabled,
        "exclude": None if options.visible is None else not options.visible,
    }
    if any([value is not None for name, value in told.items() if name != "effort"]):
        fields["reasoning"] = {name: value for name, value in told.items() if value is not None}
    return fields
