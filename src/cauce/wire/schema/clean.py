"""A client's JSON Schema made into one that an upstream takes.

Rules: the client's schema is never changed. What comes out may refuse more than the client's schema does, and says so
(`narrowed`), but does not quietly allow more: each constraint the upstream cannot be held to is listed (`lost`) and told to
the model in the description. Whoever must be sure checks answers against the client's own schema.
"""

import msgspec

from cauce.domain.errors import Unsupported
from cauce.wire.schema.cleaner import Cleaner
from cauce.wire.schema.profile import Profile
from cauce.wire.schema.references import Schema, check_bounds

FIELD = "response_format.json_schema.schema"

_MOST_TOLD = 3


class Cleaned(msgspec.Struct, frozen=True):
    """`schema` as the upstream takes it, and where it says something else than the client's, as `$.pets[].name: minLength`.

    `lost`: constraints that answers may break. `nulled`: properties the client lets be absent, and that are null instead.
    `narrowed`: values the client allows and the upstream will not give.
    """

    schema: Schema
    lost: tuple[str, ...] = ()
    nulled: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()

    @property
    def faithful(self) -> bool:
        """Whether every value it lets a model give means what the client's schema means by it, and none is out of reach."""
        return not self.nulled and not self.narrowed


def asked(schema: Schema, strict: bool | None, profile: Profile, field: str = FIELD) -> tuple[Schema, bool | None]:
    """The schema an upstream of `profile` is asked for, and whether strictly: never one that means something else.

    Raises `InvalidRequest`, and `Unsupported` where the upstream has no other way than one that means something else.
    """
    cleaned = clean(schema, profile, field)
    if profile.lenient and not (strict and cleaned.faithful):
        return schema, False if strict else strict
    if not cleaned.faithful:
        different = ", ".join([*cleaned.nulled, *cleaned.narrowed][:_MOST_TOLD])
        raise Unsupported(f"{field}: the model's server cannot be asked for this schema ({different})", field=field)
    return cleaned.schema, strict


def clean(schema: Schema, profile: Profile, field: str = FIELD) -> Cleaned:
    """`schema` for upstreams of `profile`. `field` is where the client wrote it.

    Raises `InvalidRequest` for what is no schema, and `Unsupported` for one that such an upstream cannot be asked for.
    """
    check_bounds(schema, field)
    cleaner = Cleaner(schema, profile, field)
    root = cleaner.cleaned()
    return Cleaned(root, tuple(cleaner.lost), tuple(cleaner.nulled), tuple(cleaner.narrowed))
