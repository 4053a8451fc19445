"""In which order models are asked to go on with an answer: whoever broke last comes last, so that none is starved by two that break."""

from collections.abc import Sequence

from cauce.domain.delta import Attempt
from cauce.ports.provider import Candidate


class Order:
    """Of the candidates of one answer. Those that answer offline stay behind the models, and are not asked to go on."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._models = [one for one in candidates if one.level != "offline"]
        self._offline = [one for one in candidates if one.level == "offline"]
        self._broken: Candidate | None = None
        """Who broke last, unless that was while it went on from its own beginning."""
        self._refused: list[Candidate] = []

    @property
    def models(self) -> list[Candidate]:
        """Whom to ask, in turn."""
        return list(self._models)

    @property
    def everyone(self) -> tuple[Candidate, ...]:
        """The same with those that answer offline."""
        return (*self._models, *self._offline)

    def broke(self, candidate: Candidate | None, strategy: str) -> None:
        """An attempt of `candidate` failed."""
        place = _place(self._models, candidate)
        if place is not None:
            broken = self._models.pop(place)
            self._models.append(broken)
            self._broken = broken if strategy != "prefill" else None

    def broke_at(self, attempt: Attempt) -> None:
        """The same of an attempt of another process."""
        for one in self._models:
            if (one.provider.name, one.model) == (attempt.provider, attempt.model):
                self.broke(one, attempt.strategy)
                return

    def exact(self, usable: Sequence[Candidate]) -> list[Candidate]:
        """`usable`, which can go on from a beginning: first the model that wrote it, unless it has just failed at that."""
        place = _place(usable, self._broken)
        return list(usable) if place is None else [usable[place], *usable[:place], *usable[place + 1 :]]

    def refuse(self, candidate: Candidate | None) -> None:
        """What `candidate` went on with was no continuation."""
        if candidate is not None:
            self._refused.append(candidate)

    @property
    def refusals(self) -> int:
        """How often somebody was refused so."""
        return len(self._refused)

    def hopeless(self, models: Sequence[Candidate]) -> bool:
        """Whether there is none among `models` that has not been refused."""
        return all([_place(self._refused, one) is not None for one in models])


def behind(models: Sequence[Candidate], candidate: Candidate | None) -> list[Candidate]:
    """Those of `models` that come after `candidate`."""
    return list(models[(_place(models, candidate) or 0) + 1 :])


def _place(candidates: Sequence[Candidate], candidate: Candidate | None) -> int | None:
    """Where `candidate` stands; what it is given for one call differs from what it is configured with."""
    for place, one in enumerate(candidates):
        if candidate is not None and _key(one) == _key(candidate):
            return place
    return None


def _key(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.provider.name, candidate.deployment, candidate.model
