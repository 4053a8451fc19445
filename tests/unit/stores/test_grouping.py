import pytest

from cauce.domain.errors import InvalidRequest
from cauce.ports.usage import Query
from cauce.stores import grouping
from cauce.stores.cells import Cell, Kind
from cauce.stores.grouping import Grouping

NOBODY = Kind("t", "p", "m", "", "chat", "web", "primary", "completed", "priced", 0, "", "")


def test_more_groups_than_can_be_told_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_GROUPS", 3)
    asked = Grouping(Query("t", 0, 86_400, ("user",)), 86_400.0)
    for number in (1, 2, 3, 3):
        asked.add(0, NOBODY._replace(user=f"u{number}"), Cell())
    with pytest.raises(InvalidRequest, match="more than 3 groups: ask for a shorter time") as refused:
        asked.add(0, NOBODY._replace(user="u4"), Cell())
    assert refused.value.field == "group_by"
