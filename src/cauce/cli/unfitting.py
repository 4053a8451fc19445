"""Limits, budgets and facts that hold for nobody: their globs fit no key, no tenant, no provider. Most likely a name is mistyped."""

from collections.abc import Collection
from fnmatch import fnmatchcase

from cauce.bootstrap import Runtime
from cauce.cli.words import say
from cauce.domain.request import Scope


def unfitting_globs(running: Runtime) -> list[str]:
    """A sentence for each. Providers are those that are configured or were found by now; users are whoever requests name, so any may come."""
    config = running.config
    # Whoever comes without a key has a scope too: all do where there are none, and `cauce ask` always.
    scopes = [*[key.scope for key in config.auth.keys], Scope()]
    keys = [scope.key for scope in scopes]
    tenants = list(dict.fromkeys([scope.tenant for scope in scopes]))
    providers = [source.provider.name for source in running.router.sources]
    of_keys = (("limits.keys", config.limits.keys), ("budgets.keys", config.budgets.keys))
    of_models = (("limits.models", config.limits.models), ("facts", config.facts))
    return [
        *[
            say(
                '[{table}."{glob}"] fits no API key, so it holds for nobody: there are {names}',
                table=table,
                glob=glob,
                names=", ".join(keys),
            )
            for table, globs in of_keys
            for glob in _unfitting(globs, keys)
        ],
        *[
            say(
                '[budgets.tenants."{glob}"] fits no tenant, so it holds for nobody: there are {names}',
                glob=glob,
                names=", ".join(tenants),
            )
            for glob in _unfitting(config.budgets.tenants, tenants)
        ],
        *[
            say(
                '[{table}."{glob}"] fits no provider that is there now, so it holds for no model: there are {names}',
                table=table,
                glob=glob,
                names=", ".join(providers),
            )
            for table, globs in of_models
            for glob in globs
            if _unfitting([_of_provider(glob)], providers)
        ],
    ]


def _unfitting(globs: Collection[str], names: Collection[str]) -> list[str]:
    return [glob for glob in globs if not any([fnmatchcase(name, glob) for name in names])]


def _of_provider(glob: str) -> str:
    """What of a glob of `provider/model` the provider must fit. A star may stand for some of the model too."""
    before, star, _ = glob.partition("/")[0].partition("*")
    return before + star
