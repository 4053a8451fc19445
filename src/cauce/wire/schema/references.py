"""References inside one schema document: where they lead, and which of them form cycles. Other documents are never read."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote

from cauce.domain.errors import InvalidRequest

Schema = dict[str, Any]

MAX_DEPTH = 128
"""Levels of JSON a schema may have; each object inside an object takes two."""

MAX_VALUES = 20_000
"""Values a schema may hold, before and after its references are replaced."""

_DATA = frozenset({"enum", "const", "default", "examples", "example"})
"""Keywords whose values are no schemas: what looks like a reference there is none."""

_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose values are schemas by name: those names are no keywords."""


def check_bounds(schema: Any, field: str) -> None:
    """Raises `InvalidRequest` for a schema that is too deep, too large, or no schema."""
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"{field}: a JSON Schema is an object", field=field)
    level: list[Any] = [schema]
    values = 0
    for _ in range(MAX_DEPTH):
        values += len(level)
        if values > MAX_VALUES:
            raise InvalidRequest(f"{field}: the schema holds more than {MAX_VALUES} values", field=field)
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise InvalidRequest(f"{field}: the schema is nested more than {MAX_DEPTH} levels deep", field=field)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast(Schema, value).values())
    return cast(list[Any], value) if isinstance(value, list) else []


class References:
    """The references of `root`. A target is known by its pointer, such as `$defs/Pet`; the root's is empty."""

    def __init__(self, root: Schema, field: str) -> None:
        self._root = root
        self._field = field
        self._anchors: dict[str, str] = {}
        self._uses: list[tuple[str, str]] = []
        self._survey(root, "", named=False)
        self._cyclic = _cycles(self._graph()) if self._uses else frozenset[str]()

    def pointer(self, reference: Any) -> str:
        """The pointer `reference` means. Raises `InvalidRequest`."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self._wrong(f"the reference {reference!r} leads to another document: put what it means under $defs")
        fragment = reference[1:]
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise self._wrong(f"the reference {reference!r} leads nowhere")
            return self._anchors[fragment]
        return unquote(fragment.removeprefix("/"))

    def target(self, pointer: str) -> Schema | bool:
        """The schema at `pointer`. Raises `InvalidRequest`."""
        value: Any = self._root
        for raw in pointer.split("/") if pointer else ():
            step = raw.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and step in value:
                value = cast(Schema, value)[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(cast(list[Any], value)):
                value = cast(list[Any], value)[int(step)]
            else:
                raise self._wrong(f"the reference '#/{pointer}' leads nowhere")
        if not isinstance(value, dict | bool):
            raise self._wrong(f"the reference '#/{pointer}' leads to what is no schema")
        return cast(Any, value)

    def cyclic(self, pointer: str) -> bool:
        """Whether the schema there leads back to itself, or lies between two that do."""
        return pointer in self._cyclic

    def _wrong(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{self._field}: {what}", field=self._field)

    def _survey(self, value: Any, pointer: str, *, named: bool) -> None:
        """Note the anchors, and each reference with the pointer of the schema it stands in."""
        before = f"{pointer}/" if pointer else ""
        if isinstance(value, list):
            for index, item in enumerate(cast(list[Any], value)):
                self._survey(item, f"{before}{index}", named=False)
        if not isinstance(value, dict):
            return
        schema = cast(Schema, value)
        if not named:
            if isinstance(anchor := schema.get("$anchor"), str):
                self._anchors[anchor] = pointer
            if isinstance(reference := schema.get("$ref"), str):
                self._uses.append((before, reference))
        for name, child in schema.items():
            if named or name not in _DATA:
                step = name.replace("~", "~0").replace("/", "~1")
                self._survey(child, f"{before}{step}", named=not named and name in _NAMED)

    def _graph(self) -> dict[str, set[str]]:
        """From each target to the targets that the schemas in it refer to."""
        uses = sorted([(user, self.pointer(reference)) for user, reference in self._uses])
        users = [user for user, _ in uses]
        graph: dict[str, set[str]] = {}
        for target in {pointer for _, pointer in uses}:
            before = f"{target}/" if target else ""
            leads = graph[target] = set[str]()
            # What stands in the target has pointers that begin with its own, and so lies together.
            for place in range(bisect_left(users, before), len(users)):
                if not users[place].startswith(before):
                    break
                leads.add(uses[place][1])
        return graph


def reached(root: Schema, definitions: Mapping[str, Schema | None]) -> dict[str, Schema]:
    """The definitions that `root`, a cleaned schema, leads to."""
    found: dict[str, Schema] = {}
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        reference: Any = cast(Schema, value).get("$ref") if isinstance(value, dict) else None
        name = reference.removeprefix("#/$defs/") if isinstance(reference, str) else ""
        definition = definitions.get(name)
        if definition is not None and name not in found:
            found[name] = definition
            waiting.append(definition)
        waiting.extend(_children(value))
    return {name: found[name] for name in definitions if name in found}


def _cycles(graph: dict[str, set[str]]) -> frozenset[str]:
    """What is left of `graph` without what leads to no cycle, and what no cycle leads to."""
    return frozenset(_trimmed(_turned(_trimmed(graph))))


def _trimmed(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """`graph` without what leads nowhere, over and over until all is gone that leads to no cycle."""
    left = {node: set(leads) for node, leads in graph.items()}
    back = _turned(graph)
    ends = [node for node, leads in left.items() if not leads]
    while ends:
        end = ends.pop()
        del left[end]
        for node in back[end]:
            left[node].discard(end)
            if not left[node]:
                ends.append(node)
    return left


def _turned(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """`graph` with its arrows turned round."""
    turned: dict[str, set[str]] = {node: set() for node in graph}
    for node, leads in graph.items():
        for lead in leads:
            turned[lead].add(node)
    return turned
