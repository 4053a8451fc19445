"""Which models really go on from the beginning of their own answer: what is claimed of one is proven before it is relied on.

Gateways drop the flag that asks for it in silence (BerriAI/litellm#28580), and newer models refuse it. So one tiny request decides,
the first time an answer that broke could need it, and its verdict holds for a day. What the configuration says of a model needs
no proof.
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from cauce.domain.errors import CauceError, ProviderFailure
from cauce.domain.message import Message, TextPart
from cauce.domain.request import ReasoningOptions, Request, Sampling
from cauce.engine.compose import collect
from cauce.ports.cache import NO_CACHE
from cauce.ports.clock import Clock
from cauce.ports.provider import Call, Candidate, Open

VERDICT = 86_400.0
"""Seconds a verdict holds."""

UNDECIDED = 60.0
"""Seconds before a model is tried again that gave no answer to judge."""

PATIENCE = 5.0
"""Seconds an answer that broke waits for verdicts."""

MOST_KEPT = 2000
"""Verdicts that are kept. Beyond that, all begin anew."""

_QUESTION = "Count from one to eight in English words, separated by single spaces. Write only the words."
_BEGUN = "one two three four"
_NEXT = "five"
_MOST_TOKENS = 16

_Key = tuple[str, str, str]

logger = logging.getLogger("cauce.calls")


class _Verdict(msgspec.Struct, frozen=True):
    proven: bool
    until: float


class Prefills:
    """The verdicts of one process. Models are asked through `open`, so each request has its row in the ledger."""

    def __init__(self, clock: Clock, open: Open) -> None:
        self._clock = clock
        self._open = open
        self._verdicts: dict[_Key, _Verdict] = {}
        self._asking: dict[_Key, asyncio.Task[None]] = {}

    async def usable(self, candidates: Sequence[Candidate], call: Call) -> list[Candidate]:
        """Those of `candidates` that can be relied on. What is only claimed of them is tried, on behalf of `call`."""
        if call.request.prompt is not None:
            # Going on with a text is what they do: nothing is claimed of them.
            return [one for one in candidates if one.completes]
        if _thinks(call.request.reasoning):
            return [one for one in candidates if one.facts.prefill and one.facts.prefill_vouched]
        claimed = [one for one in candidates if one.facts.prefill and not one.facts.prefill_vouched]
        tried = [task for one in claimed if (task := self._tried(one, call)) is not None]
        if tried:
            try:
                async with self._clock.timeout(PATIENCE):
                    await asyncio.wait(tried)
            except TimeoutError:
                logger.info("%s: whether a model takes a beginning is not known in time", call.request_id)
        return [one for one in candidates if one.facts.prefill and (one.facts.prefill_vouched or self._proven(one))]

    def refused(self, candidates: Sequence[Candidate], error: CauceError) -> None:
        """`error` is what one of `candidates` said to a beginning: what is only claimed of that provider is believed no longer."""
        if error.code != "invalid_request" or not isinstance(error, ProviderFailure):
            return
        for one in candidates:
            if one.provider.name == error.provider:
                self._judged(_key(one), proven=False, seconds=VERDICT)

    def _proven(self, candidate: Candidate) -> bool:
        verdict = self._verdicts.get(_key(candidate))
        return verdict is not None and verdict.proven and verdict.until > self._clock.monotonic()

    def _tried(self, candidate: Candidate, call: Call) -> asyncio.Task[None] | None:
        """The task that finds out; None where there is a verdict."""
        key = _key(candidate)
        verdict = self._verdicts.get(key)
        if verdict is not None and verdict.until > self._clock.monotonic():
            return None
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(candidate, call), name=f"prefill of {key}")
        return task

    async def _ask(self, candidate: Candidate, call: Call) -> None:
        key = _key(candidate)
        asked = Call(
            _request(call), call.scope, (candidate,), call.request_id, streamed=False, cache=NO_CACHE, waits=False
        )
        try:
            completion = await collect(await self._open(asked))
        except CauceError as error:
            refused = error.code == "invalid_request"
            self._judged(key, proven=False, seconds=VERDICT if refused else UNDECIDED)
            logger.info("%s: %s takes no beginning of its answer: %s", call.request_id, candidate.name, error.message)
        except Exception:
            logger.exception("%s: an unexpected error while a model was tried", call.request_id)
            self._judged(key, proven=False, seconds=UNDECIDED)
        else:
            text = completion.choices[0].text.strip().lower()
            self._judged(key, proven=text.startswith(_NEXT), seconds=VERDICT)
        finally:
            del self._asking[key]

    def _judged(self, key: _Key, *, proven: bool, seconds: float) -> None:
        if len(self._verdicts) >= MOST_KEPT:
            self._verdicts.clear()
        self._verdicts[key] = _Verdict(proven, self._clock.monotonic() + seconds)


def _key(candidate: Candidate) -> _Key:
    return candidate.provider.name, candidate.deployment, candidate.model


def _thinks(reasoning: ReasoningOptions | None) -> bool:
    """Whether the model is told to think: then most take no beginning of their answer (Anthropic, "Extended thinking")."""
    if reasoning is None or reasoning.enabled is False or reasoning.effort == "none":
        return False
    return bool(reasoning.enabled or reasoning.effort or reasoning.budget_tokens)


def _request(call: Call) -> Request:
    messages = (Message("user", (TextPart(_QUESTION),)), Message("assistant", (TextPart(_BEGUN),)))
    sampling = Sampling(temperature=0, max_tokens=_MOST_TOKENS)
    return Request(call.request.model, messages, sampling, continues=True, user=call.request.user)
