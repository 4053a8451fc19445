"""Which ways of going on with an answer are open: decided by what was shown of it, by its request, and by the route."""

import msgspec

from cauce.engine.recovery.delivered import Delivered
from cauce.ports.provider import Call


class Rungs(msgspec.Struct, frozen=True):
    """From the most exact one down. `anew`: nothing was shown that counts. `restart`: what was shown is taken back, once the others have
    failed: who can go on is better than another answer before somebody's eyes."""

    anew: bool = False
    exact: bool = False
    prompted: bool = False
    restart: bool = False

    @property
    def any(self) -> bool:
        """Whether there is a way on at all."""
        return self.anew or self.exact or self.prompted or self.restart


def rungs(call: Call, delivered: Delivered) -> Rungs:
    """The ways on for `call`, of which `delivered` was shown.

    A call of a tool that is complete is never taken back, and one that is not only where readers can take that. A text is gone on
    with where there is no more to it than one text: structured answers, several answers and those with log probabilities are not. The
    completion of a prompt is only gone on with exactly: there is no conversation in which anybody could be asked. Nor is anybody asked
    where nothing is shown before the end: who begins another answer in other words cannot be told from who goes on.
    """
    if delivered.ready or (delivered.begun and not (call.abandons or call.replaces)):
        return Rungs()
    request, midstream = call.request, call.candidates[0].midstream
    if not (delivered.text or delivered.otherwise) and (call.abandons or not delivered.begun):
        return Rungs(anew=True)
    if midstream == "fail":
        return Rungs()
    structured = request.response_format is not None and request.response_format.kind != "text"
    alone = request.sampling.n == 1 and request.sampling.logprobs is None
    plain = alone and not structured and (request.prompt is None or request.prompt.goes_on)
    goes_on = plain and not delivered.otherwise and (call.abandons or not delivered.begun)
    prompted = goes_on and request.prompt is None and midstream == "continue" and not call.withheld
    return Rungs(
        exact=goes_on and midstream in ("continue", "resume"),
        prompted=prompted,
        restart=call.replaces and midstream in ("restart", "continue"),
    )
