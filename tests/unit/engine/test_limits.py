"""Which limits hold for whom."""

from cauce.domain.request import Scope
from cauce.engine.limit_settings import Budget, BudgetsSettings, KeyRates, LimitsSettings, Rates
from cauce.engine.limits import MOST_REMEMBERED, LimitBook, ProviderRates, described, holder
from cauce.ports.limiter import Limit
from cauce.ports.provider import Candidate
from cauce.testing.scripted import ScriptedProvider, answering

_NO_LIMITS = LimitsSettings()
_NO_BUDGETS = BudgetsSettings()
UP = ScriptedProvider("up", answering("hello"))


def book(
    limits: LimitsSettings = _NO_LIMITS,
    budgets: BudgetsSettings = _NO_BUDGETS,
    providers: dict[str, ProviderRates] | None = None,
) -> LimitBook:
    return LimitBook(limits, budgets, providers or {})


def of(found: LimitBook, model: str, deployment: str = "") -> dict[str, float]:
    candidate = Candidate(UP, model, deployment=deployment)
    return {limit.key: limit.most for limit in found.of_candidate(candidate).limits}


def test_a_provider_s_limits_hold_for_all_its_models_together() -> None:
    found = book(providers={"up": ProviderRates(Rates(60, 1000, 5))})
    expected = {"provider:up:calls": 5, "provider:up:requests/minute": 60, "provider:up:tokens/minute": 1000}
    assert of(found, "a") == of(found, "b") == expected


def test_each_deployment_is_counted_by_itself() -> None:
    found = book(providers={"up": ProviderRates(Rates(60)), "up@eu": ProviderRates(Rates(10))})
    assert of(found, "a", "eu") == {"provider:up@eu:requests/minute": 10}
    assert of(found, "a", "us") == {"provider:up@us:requests/minute": 60}


def test_of_globs_that_fit_a_model_the_later_wins_setting_by_setting() -> None:
    found = book(LimitsSettings(models={"up/*": Rates(10, 100), "up/a*": Rates(tokens_per_minute=0)}))
    assert of(found, "ab") == {"model:up/ab:requests/minute": 10}
    assert of(found, "b") == {"model:up/b:requests/minute": 10, "model:up/b:tokens/minute": 100}


def test_starting_values_hold_until_the_provider_or_the_model_has_its_own() -> None:
    starting = (("*flash*", Rates(60, 100_000)),)
    fresh = book(providers={"up": ProviderRates(starting=starting)})
    assert of(fresh, "g-flash") == {
        "model:up/g-flash:requests/minute": 60,
        "model:up/g-flash:tokens/minute": 100_000,
    }
    assert of(fresh, "g-pro") == {}
    raised = book(providers={"up": ProviderRates(Rates(1000, 0), starting)})
    assert of(raised, "g-flash") == {"provider:up:requests/minute": 1000}
    named = book(LimitsSettings(models={"up/*": Rates(0, 5)}), providers={"up": ProviderRates(starting=starting)})
    assert of(named, "g-flash") == {"model:up/g-flash:tokens/minute": 5}


def test_keys_users_and_tenants_of_one_name_are_not_the_same() -> None:
    budgets = BudgetsSettings(
        keys={"*": Budget(day=1)}, users={"*": Budget(day=2)}, tenants={"*": Budget(month=3, day=0)}
    )
    caller = book(budgets=budgets).of_caller(Scope("a/b", "x:y"), "x:y")
    assert [(limit.key, limit.most) for limit in caller.budgets] == [
        ("key:a%2Fb/x%3Ay:dollars/day", 1),
        ("tenant:a%2Fb/:dollars/month", 3),
        ("user:a%2Fb/x%3Ay:dollars/day", 2),
    ]
    owners = [holder(limit.key) for limit in caller.budgets]
    assert [(one.whose, one.tenant, one.name) for one in owners] == [
        ("key", "a/b", "x:y"),
        ("tenant", "a/b", ""),
        ("user", "a/b", "x:y"),
    ]


def test_requests_without_a_user_have_no_user_s_budget() -> None:
    budgets = BudgetsSettings(users={"*": Budget(day=2)})
    assert book(budgets=budgets).of_caller(Scope(), None).budgets == ()


def test_what_an_upstream_says_holds_for_its_model_from_then_on() -> None:
    found = book()
    candidate = Candidate(UP, "a")
    assert of(found, "a") == {}
    assert found.upstream(candidate, "requests").key == "upstream:up/a:requests/minute"
    assert list(of(found, "a")) == ["upstream:up/a:requests/minute"] and of(found, "b") == {}


def test_what_is_remembered_of_callers_and_models_is_bounded() -> None:
    found = book(LimitsSettings(keys={"*": KeyRates(5)}))
    for number in range(2 * MOST_REMEMBERED + 10):
        found.of_caller(Scope(key=f"k{number}"), None)
        found.of_candidate(Candidate(UP, f"m{number}"))
    assert len(found._callers) <= MOST_REMEMBERED and len(found._candidates) <= MOST_REMEMBERED


def test_limits_are_told_in_words() -> None:
    told = [
        described(Limit("provider:up@eu:tokens/minute", "tokens", "minute", 100_000)),
        described(Limit("model:up/a:calls", "calls", "moment", 5)),
        described(Limit("tenant:acme/:dollars/month", "dollars", "month", 12.5)),
        described(Limit("upstream:up/a:requests/minute", "requests", "minute", float("inf"))),
    ]
    assert told == [
        "the limit of 100,000 tokens a minute of provider up@eu",
        "the limit of 5 calls at once of model up/a",
        "the budget of 12.5 USD a month of tenant acme",
        "what up/a says it takes now",
    ]
