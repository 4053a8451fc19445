"""The router: from a request to the candidates that may answer it, best first."""

from collections.abc import Iterable, Mapping, Sequence

from cauce.domain.errors import ModelNotFound, Unsupported
from cauce.domain.model import ModelFacts
from cauce.domain.request import Prompt, Request
from cauce.engine.routing.conditions import Conditions, Look
from cauce.engine.routing.decision import Absence, Decision, Fired, LeftOut, Why
from cauce.engine.routing.names import AUTO, Group, Names, Option, Section
from cauce.engine.routing.route import Route
from cauce.engine.routing.rules import PRIVACY, Traits, check_stays, is_private, preference
from cauce.engine.routing.source import Source, passed_on
from cauce.ports.catalogue import Catalogue
from cauce.ports.embedder import Embedder
from cauce.ports.provider import Candidate

_MOST_KEPT = 1024


class Router:
    """Sources come and go while the server runs (`add`, `remove`). Without a catalogue, no facts are known; without conditions,
    candidates are asked as they are listed.

    What a name stands for is worked out once; a route whose order depends on what is asked, or on how its candidates do, is put
    in order for each request.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        aliases: Mapping[str, str],
        default: str,
        catalogue: Catalogue | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._names = Names(routes, aliases, catalogue)
        self._conditions = conditions
        self._fixed: dict[str, Decision] = {}
        self.default = default
        """The model that answers requests which name none."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, in the order of `auto`."""
        return self._names.sources

    @property
    def conditions(self) -> Conditions | None:
        """What it looks at."""
        return self._conditions

    def add(self, source: Source) -> None:
        """Know `source`, in place of an earlier one of that name."""
        self._names.add(source)
        self._fixed.clear()

    def source(self, name: str) -> Source | None:
        """The source called `name`."""
        return self._names.by_name.get(name)

    def remove(self, name: str) -> Source | None:
        """Forget the source called `name`."""
        self._fixed.clear()
        return self._names.remove(name)

    def facts(self, source: Source, model: str) -> ModelFacts:
        """What is known of a model of `source`."""
        return self._names.facts(source, model)

    def embedder(self, candidate: Candidate) -> Embedder | None:
        """Who makes embeddings in the place of `candidate`. None: nobody there."""
        source = self.source(candidate.provider.name)
        if source is None:
            return None
        return next((one.embedder for one in source.places() if one.name == candidate.deployment), None)

    def is_here(self, candidate: Candidate) -> bool:
        """Whether what `candidate` is asked stays on this machine."""
        source = self.source(candidate.provider.name)
        places = source.places() if source is not None else ()
        return any([one.here for one in places if one.name == candidate.deployment]) and not passed_on(candidate.model)

    def names(self) -> tuple[str, ...]:
        """Every name a client may send, but for models only an upstream knows: public names, then `provider/model`."""
        return self._names.known()

    def aliases(self) -> Mapping[str, str]:
        """Names that stand for other names."""
        return self._names.aliases

    def candidates(self, request: Request) -> tuple[Candidate, ...]:
        """Where `request` may go, best first.

        Raises `InvalidRequest` for a name nothing can have and for addresses in a private request, `ModelNotFound`, naming the nearest model or saying that none is on
        this machine, and `Unsupported` for a prompt that none of them can go on with.
        """
        return self.route(request).candidates

    def route(self, request: Request) -> Decision:
        """Where `request` goes now. Raises what `candidates` raises."""
        fixed = self._fixed.get(request.model)
        if fixed is not None and _is_plain(request):
            if fixed.private:
                check_stays(request)
            return fixed
        return self.decide(request)

    def is_private(self, request: Request) -> bool:
        """Whether `request`, or the model it asks, says that nothing of it may leave this machine. Raises `InvalidRequest` for a wish
        that nobody understands."""
        if is_private(request):
            return True
        try:
            return self._names.section(request.model or self.default).route.private
        except ModelNotFound:
            # Nothing is configured under that name.
            return False

    def decide(self, request: Request, tokens: int | None = None) -> Decision:
        """Where `request` goes and why. `tokens`: to be taken for its length. Raises what `candidates` raises."""
        names = (request.model or self.default, *request.fallbacks)
        sections = [self._names.section(name) for name in names]
        private = sections[0].route.private or is_private(request)
        if private:
            check_stays(request)
        work = _Work(self._names, self._conditions, request, Traits(request, tokens), private=private)
        for section in sections:
            work.take(section)
        main = sections[0]
        decision = Decision(
            names[0],
            main.name,
            main.route.order,
            private,
            work.candidates(),
            tuple(work.whys),
            tuple(work.fired),
            tuple(work.left_out),
        )
        if _is_plain(request) and _is_fixed(main) and tokens is None:
            if len(self._fixed) >= _MOST_KEPT:
                self._fixed.clear()
            self._fixed[request.model] = decision
        return decision


class _Work:
    """One decision being made."""

    def __init__(
        self, names: Names, conditions: Conditions | None, request: Request, traits: Traits, *, private: bool
    ) -> None:
        self._names = names
        self._conditions = conditions
        self._request = request
        self._look = Look(traits, request.stream, request.prompt is not None)
        self._private = private
        self._groups: list[tuple[Option, ...]] = []
        self._seen: set[tuple[str, str]] = set()
        self._unable: list[str] = []
        self._taken = 0
        self.whys: list[Why] = []
        self.fired: list[Fired] = [Fired("privacy", "local")] if private else []
        self.left_out: list[LeftOut] = []

    def take(self, section: Section) -> None:
        """Put what `section` stands for behind what is there."""
        self.left_out += [LeftOut(name, "away") for name in section.away]
        self.left_out += [LeftOut(name, "unlisted") for name in section.unlisted]
        groups = self._allowed(section)
        fired = preference(section.route, self._look.traits) if section.route.ruled else None
        if fired is not None:
            self.fired.append(fired)
        for group in self._arranged(groups, section.route, fired):
            options = group.options if self._conditions is None else self._conditions.deployments(group, self._look)
            fresh = tuple([option for option in options if self._is_new(group, option)])
            if fresh:
                self._groups.append(fresh)
                self.whys.append(self._why(section, group, fired))
                self.whys.extend(["deployment" for _ in fresh[1:]])
        self._taken += 1

    def candidates(self) -> tuple[Candidate, ...]:
        """All of them. Raises `ModelNotFound`, `Unsupported` when none is left."""
        if self._groups:
            first, *later = self._groups
            return (
                *[option.first for option in first],
                *[option.later for options in later for option in options],
            )
        prompt = self._request.prompt
        if self._unable and prompt is not None:
            field, what = _inability(prompt)
            names = ", ".join(self._unable)
            raise Unsupported(f"{field}: no server of {names} {what}: name a model whose server does", field=field)
        listed = ", ".join([one.name for one in self.left_out])
        raise ModelNotFound(
            f"privacy: this request stays on this machine, and none of {listed} is on it now: start a local model server, or "
            "name one of its models",
            field="model",
        )

    def _allowed(self, section: Section) -> Sequence[Group]:
        """The groups of `section` that may have the request."""
        private = self._private or section.route.private
        prompt = self._request.prompt
        if not private and prompt is None:
            return section.groups
        allowed: list[Group] = []
        for group in section.groups:
            kept = [option for option in group.options if option.here] if private else group.options
            self._leave_out(group, [option for option in group.options if option not in kept], "privacy")
            if kept and prompt is not None and not self._is_able(group, prompt):
                self._leave_out(group, kept, "prompt")
                self._unable.append(group.name)
                kept = []
            if len(kept) == len(group.options):
                allowed.append(group)
            elif kept:
                allowed.append(Group(group.name, tuple(kept), group.weight, group.tier))
        return allowed

    def _leave_out(self, group: Group, options: Sequence[Option], reason: Absence) -> None:
        self.left_out += [LeftOut(group.name, reason, option.deployment) for option in options]

    def _arranged(self, groups: Sequence[Group], route: Route, fired: Fired | None) -> Sequence[Group]:
        """`groups` as the rules and the order of `route` want them. The offline answerer stays last, unless the list is literal."""
        if route.order == "ordered" and fired is None:
            return groups
        last = [group for group in groups if group.offline]
        asked = [group for group in groups if not group.offline]
        sides = [
            [group for group in asked if _is_first(group, fired)],
            [group for group in asked if not _is_first(group, fired)],
        ]
        arranged: list[Group] = []
        for side in sides:
            conditions = self._conditions
            arranged += conditions.arranged(side, route.order, self._look) if side and conditions is not None else side
        return arranged + last

    def _why(self, section: Section, group: Group, fired: Fired | None) -> Why:
        order = section.route.order
        if self._taken:
            return "asked"
        if group.offline and len(section.groups) > 1 and (section.route.name == AUTO or fired or order != "ordered"):
            return "resort"
        if fired is not None:
            return "rule" if _is_first(group, fired) else "behind"
        if order == "ordered" or order == "hybrid":
            return "listed" if section.route.candidates or len(section.groups) == 1 else "tier"
        return "tier" if order == "tiered" else order

    def _is_new(self, group: Group, option: Option) -> bool:
        key = (group.name, option.deployment)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _is_able(self, group: Group, prompt: Prompt) -> bool:
        """Whether `group` can go on with `prompt`: any model with a text, as a message; few with more than that."""
        source = self._names.by_name[group.options[0].first.provider.name]
        if prompt.suffix is not None:
            return source.infills
        return bool(prompt.text) or source.completes


def _is_first(group: Group, fired: Fired | None) -> bool:
    """Whether the rule that fired puts `group` first."""
    if fired is None:
        return True
    if fired.first == "local":
        return group.here
    if fired.first == "cloud":
        return not group.here
    return group.name == fired.first


def _is_plain(request: Request) -> bool:
    """Whether only its model decides where `request` goes, as far as it is up to the request."""
    metadata = request.metadata
    return (
        not request.fallbacks
        and request.prompt is None
        and request.privacy is None
        and (metadata is None or PRIVACY not in metadata)
    )


def _is_fixed(section: Section) -> bool:
    """Whether `section` is the same list for every plain request."""
    return (
        section.route.order == "ordered"
        and not section.route.ruled
        and all([len(group.options) == 1 for group in section.groups])
    )


def _inability(prompt: Prompt) -> tuple[str, str]:
    if prompt.suffix is not None:
        return "suffix", "fills in between a prompt and a suffix"
    return "prompt", "takes prompts as they are (no text, tokens, best_of, or log probabilities with echo)"
