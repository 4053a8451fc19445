"""The dry run of routing, with what other parts know of candidates."""

from cauce.engine.estimator import Estimator
from cauce.engine.limits import described
from cauce.engine.policies.concurrency import Upstreams
from cauce.engine.policies.limit import Limiting
from cauce.engine.routing.explain import Explainer
from cauce.engine.routing.router import Router
from cauce.ports.provider import Candidate


def explainer(router: Router, estimator: Estimator, limits: Limiting | None, upstreams: Upstreams) -> Explainer:
    """Explains what `router` decides. `limits`, and what `upstreams` are known to take at once, are named for each candidate."""

    def told(candidate: Candidate) -> tuple[str, ...]:
        ours = [] if limits is None else [described(limit) for limit in limits.book.of_candidate(candidate).limits]
        place = (candidate.provider.name, candidate.deployment, candidate.model)
        learned = [
            f"{one.most} at once, learned from what it refused"
            for one in upstreams.crowded()
            if (one.provider, one.deployment, one.model) == place
        ]
        return (*ours, *learned)

    return Explainer(router, estimator, told)
