"""The dry run of routing, with what other parts know of candidates."""

from cauce.engine.estimator import Estimator
from cauce.engine.limits import described
from cauce.engine.policies.limit import Limiting
from cauce.engine.routing.explain import Explainer
from cauce.engine.routing.router import Router
from cauce.ports.provider import Candidate


def explainer(router: Router, estimator: Estimator, limits: Limiting | None) -> Explainer:
    """Explains what `router` decides. `limits` are named for each candidate."""

    def told(candidate: Candidate) -> tuple[str, ...]:
        return (
            () if limits is None else tuple([described(limit) for limit in limits.book.of_candidate(candidate).limits])
        )

    return Explainer(router, estimator, told)
