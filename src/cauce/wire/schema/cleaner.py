"""One schema on its way from the client's form to an upstream's: the walk, and how schemas are put into schemas."""

from typing import Any, cast

from cauce.domain.errors import Unsupported
from cauce.wire.schema.keywords import kind, listed, simple, told, types
from cauce.wire.schema.merging import exclusive, merged
from cauce.wire.schema.nulls import only_null, or_null, takes_null, with_null_apart
from cauce.wire.schema.profile import Profile
from cauce.wire.schema.references import MAX_VALUES, References, Schema, reached
from cauce.wire.schema.shapes import check_shape

LEVELS = 2
"""How often a schema that leads back to itself is repeated inside itself where an upstream takes no cycles."""

_MAX_LEVELS = 80
_SCALARS = ["string", "number", "boolean", "null"]
_BASE = frozenset({"type", "properties", "required", "additionalProperties", "items", "enum", "const"})


class Cleaner:
    """One schema on its way. A method that returns None says: no value can be an instance of this."""

    def __init__(self, root: Schema, profile: Profile, field: str) -> None:
        self._root = root
        self._profile = profile
        self._field = field
        self._references = References(root, field)
        self._definitions: dict[str, Schema | None] = {}
        self._names: dict[str, str] = {}
        self._waiting: list[str] = []
        self._expanded: list[str] = []
        self.lost: dict[str, None] = {}
        self.nulled: dict[str, None] = {}
        self.narrowed: dict[str, None] = {}
        self._values = 0
        self._level = 0

    def cleaned(self) -> Schema:
        """The whole schema. Raises `InvalidRequest` and `Unsupported`."""
        root = self._replaced(self._root) if "$ref" in self._root else self._node(self._root, "$")
        while self._waiting:
            pointer = self._waiting.pop()
            name = self._names[pointer]
            self._definitions[name] = self._node(self._references.target(pointer), f"#{name}")
        if root is None or None in self._definitions.values():
            raise self._unsupported("it allows no value there")
        if self._profile.root_object and root.get("type") != "object":
            raise self._unsupported("its root must be an object there")
        used = reached(root, self._definitions)
        return {**root, "$defs": used} if used else root

    def _unsupported(self, why: str) -> Unsupported:
        return Unsupported(f"{self._field}: the model's server cannot take this schema: {why}", field=self._field)

    def _node(self, schema: Any, path: str) -> Schema | None:
        """One schema, whatever it is."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._unsupported("it is too large once its references are replaced")
        if isinstance(schema, bool):
            return self._anything(path) if schema else None
        check_shape(schema, path, self._field)
        if self._level >= _MAX_LEVELS:
            raise self._unsupported("it is nested too deeply once its references are replaced")
        self._level += 1
        try:
            if "$ref" in schema:
                return self._referred(schema, path)
            return self._plain(schema, path)
        finally:
            self._level -= 1

    # References

    def _referred(self, schema: Schema, path: str) -> Schema | None:
        pointer = self._references.pointer(schema["$ref"])
        beside = {
            name: value for name, value in schema.items() if name not in {"$ref", "$defs", "definitions", "title"}
        }
        cyclic = self._references.cyclic(pointer)
        if self._profile.inlined or beside.keys() - {"description"} or (cyclic and not self._profile.recursive):
            return self._replaced(schema)
        name = self._name(pointer)
        if not cyclic and name not in self._definitions:
            self._definitions[name] = self._node(self._references.target(pointer), f"#{name}")
        if not cyclic and self._definitions[name] is None:
            del self._definitions[name]
            return None
        reference: Schema = {"$ref": f"#/$defs/{name}"}
        # Beside a reference nothing else may stand in most upstreams' schemas.
        return {"anyOf": [reference], **beside} if beside else reference

    def _replaced(self, schema: Schema) -> Schema | None:
        """What a reference means, in its place, with what stands beside the reference."""
        pointer = self._references.pointer(schema["$ref"])
        path = f"#{_last(pointer)}"
        if self._expanded.count(pointer) > LEVELS:
            _note(self.narrowed, path, f"more than {LEVELS} inside each other")
            return None
        target = self._references.target(pointer)
        beside = {name: value for name, value in schema.items() if name not in {"$ref", "$defs", "definitions"}}
        self._expanded.append(pointer)
        try:
            if isinstance(target, bool):
                return self._node(beside if target else False, path)
            check_shape(target, path, self._field)
            check_shape(beside, path, self._field)
            target = {name: value for name, value in target.items() if name not in {"$defs", "definitions"}}
            whole = self._merged([beside, target], path) if beside else target
            return None if whole is None else self._node(whole, path)
        finally:
            self._expanded.pop()

    def _name(self, pointer: str) -> str:
        """The name of a definition, taken from where the client has it."""
        if pointer in self._names:
            return self._names[pointer]
        own = "".join([letter if letter.isalnum() else "_" for letter in _last(pointer)])
        name = own
        while name in self._names.values():
            name = f"{own}_{len(self._names)}"
        self._names[pointer] = name
        if self._references.cyclic(pointer):
            self._waiting.append(pointer)
        return name

    def _resolved(self, schema: Any, path: str) -> Schema | None:
        """A branch as keywords, for a look or a merge: references followed, as far as they go nowhere in circles."""
        for _ in range(LEVELS):
            if schema is True:
                return {}
            if schema is False:
                return None
            check_shape(schema, path, self._field)
            branch = cast(Schema, schema)
            if "$ref" not in branch:
                return branch
            target = self._references.target(self._references.pointer(branch["$ref"]))
            beside = {name: value for name, value in branch.items() if name != "$ref"}
            schema = target if not beside else {**beside, "allOf": [*beside.get("allOf", []), target]}
        return None

    # Several schemas in one

    def _merged(self, parts: list[Schema], path: str) -> Schema | None:
        whole: Schema | None = {}
        for part in parts:
            if whole is not None:
                whole = merged(whole, part, lambda name: _note(self.lost, path, name))
        return whole

    def _plain(self, schema: Schema, path: str) -> Schema | None:
        """A schema without a reference of its own."""
        if "allOf" in schema:
            if False in schema["allOf"]:
                return None
            parts = [self._resolved(part, path) for part in schema["allOf"]]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                _note(self.lost, path, "allOf")
            whole = self._merged([{k: v for k, v in schema.items() if k != "allOf"}, *known], path)
            return None if whole is None else self._node(whole, path)
        if "oneOf" in schema:
            schema = self._without_one_of(schema, path)
        whole = self._profile.closed or self._profile.nullable
        if "anyOf" in schema and whole and not schema.keys().isdisjoint(_BASE):
            return self._distributed(schema, path)
        return self._typed(schema, path)

    def _without_one_of(self, schema: Schema, path: str) -> Schema:
        """`oneOf` as `anyOf`."""
        branches: list[Any] = schema["oneOf"]
        known = [branch for one in branches if (branch := self._resolved(one, path)) is not None]
        if len(known) < len(branches) or not exclusive(known):
            _note(self.lost, path, "oneOf")
        rest = {name: value for name, value in schema.items() if name != "oneOf"}
        if "anyOf" in rest:
            _note(self.lost, path, "anyOf")
        return {**rest, "anyOf": branches}

    def _distributed(self, schema: Schema, path: str) -> Schema | None:
        """A schema with branches, where each branch must be whole: what stands beside them goes into each."""
        base = {name: value for name, value in schema.items() if name not in {"anyOf", "title", "description"}}
        around = {name: schema[name] for name in ("title", "description") if name in schema}
        branches: list[Any] = []
        for one in schema["anyOf"]:
            branch = self._resolved(one, path)
            if branch is None:
                _note(self.narrowed, path, "a branch of anyOf")
                continue
            whole = self._merged([branch, base], path)
            if whole is not None:
                branches.append(whole)
        return self._typed({**around, "anyOf": branches}, path) if branches else None

    # One schema

    def _anything(self, path: str) -> Schema:
        if not (self._profile.closed or self._profile.nullable):
            return {}
        _note(self.narrowed, path, "objects and arrays")
        if not self._profile.nullable:
            return {"type": list(_SCALARS)}
        return {"anyOf": [{"type": name} for name in _SCALARS if name != "null"], "nullable": True}

    def _typed(self, schema: Schema, path: str) -> Schema | None:
        kinds = types(schema)
        if not kinds and schema.keys().isdisjoint({"anyOf", "enum", "const"}):
            kept, _ = simple(schema, self._profile, kinds)
            return {**kept, **self._anything(path)}
        apart = [name for name in kinds if name != "null"]
        if self._profile.nullable and len(apart) > 1:
            about = {name: schema[name] for name in ("title", "description") if name in schema}
            null = [{"type": "null"}] if "null" in kinds else []
            return self._typed({**about, "anyOf": [*[{**schema, "type": name} for name in apart], *null]}, path)
        out, left = simple(schema, self._profile, kinds)
        if kinds:
            out["type"] = kinds[0] if len(kinds) == 1 else kinds
        complete = (
            self._literals(schema, out, path, left)
            and self._branches(schema, out, path)
            and ("object" not in kinds or self._object(schema, out, path))
            and ("array" not in kinds or self._array(schema, out, path, left))
        )
        if not complete:
            return None
        for name in left:
            _note(self.lost, path, name)
        if left and (description := told(schema.get("description"), schema, left)) is not None:
            out["description"] = description
        if not self._profile.nullable:
            return out
        if kinds == ["null"]:
            _note(self.lost, path, "type")
        return with_null_apart(out, kinds)

    def _literals(self, schema: Schema, out: Schema, path: str, left: list[str]) -> bool:
        values = listed(schema)
        if values is None:
            return True
        kinds = types(schema)
        apart = {"number" if name == "integer" else name for name in kinds}
        values = [value for value in values if not kinds or kind(value) in apart]
        if not values:
            return False
        taken = [value for value in values if kind(value) in self._profile.literals]
        if self._profile.nullable and None in values:
            out["nullable"] = True
        if not kinds and (self._profile.closed or self._profile.nullable or not taken):
            found = sorted({kind(value) for value in taken or values})
            out["type"] = found[0] if len(found) == 1 or self._profile.nullable else found
        if not taken:
            left.extend([name for name in ("enum", "const") if name in schema])
            return True
        if len(taken) < len(values) and not (self._profile.nullable and values == [*taken, None]):
            _note(self.narrowed, path, "values of enum")
        if "const" in schema and "const" in self._profile.keywords:
            out["const"] = taken[0]
        else:
            out["enum"] = taken
        return True

    def _branches(self, schema: Schema, out: Schema, path: str) -> bool:
        if "anyOf" not in schema:
            return True
        given: list[Any] = schema["anyOf"]
        if self._profile.nullable and not all([only_null(one) for one in given]):
            apart = [one for one in given if not only_null(one)]
            if len(apart) < len(given):
                out["nullable"] = True
            given = apart
        branches = [branch for one in given if (branch := self._node(one, path)) is not None]
        if len(branches) == 1 and self._profile.nullable:
            out.update({**branches[0], **out})
        else:
            out["anyOf"] = branches
        return bool(branches)

    def _object(self, schema: Schema, out: Schema, path: str) -> bool:
        properties: Schema = dict(schema.get("properties", {}))
        required: list[str] = list(dict.fromkeys(schema.get("required", [])))
        further = schema.get("additionalProperties", True)
        properties.update({name: further for name in required if name not in properties})
        described: dict[str, Schema] = {}
        for name, one in properties.items():
            inside = self._node(one, f"{path}.{name}")
            if inside is not None:
                described[name] = inside
            elif name in required:
                return False
        if self._profile.all_required:
            for name, inside in described.items():
                if name not in required and not takes_null(inside, self._definitions):
                    _note(self.nulled, f"{path}.{name}", "null where it may be absent")
                    described[name] = or_null(inside)
            required = list(described)
        if described or "properties" in schema:
            out["properties"] = described
        if required:
            out["required"] = required
        if self._profile.ordering and len(described) > 1:
            out["propertyOrdering"] = list(described)
        self._further(schema, out, path)
        if len(described) < len(properties) and out.get("additionalProperties", True) is not False:
            # What was left out must stay out.
            _note(self.narrowed, path, "additionalProperties")
            if "additionalProperties" in self._profile.keywords:
                out["additionalProperties"] = False
        return True

    def _further(self, schema: Schema, out: Schema, path: str) -> None:
        """Properties beyond those described."""
        further = schema.get("additionalProperties")
        if self._profile.closed or "additionalProperties" not in self._profile.keywords:
            if further is not False and (further is not None or not schema.get("properties")):
                _note(self.narrowed, path, "additionalProperties")
            if self._profile.closed:
                out["additionalProperties"] = False
        elif further is not None:
            inside = self._node(further, f"{path}.*") if not isinstance(further, bool) else further
            out["additionalProperties"] = False if inside is None else inside

    def _array(self, schema: Schema, out: Schema, path: str, left: list[str]) -> bool:
        prefix: list[Any] = schema.get("prefixItems", [])
        items: Any = schema.get("items", True)
        if isinstance(items, list):
            # How drafts before 2020-12 say it.
            prefix, items = cast(list[Any], items), schema.get("additionalItems", True)
        if prefix and "prefixItems" in self._profile.keywords:
            return self._heads(prefix, items, out, path)
        if prefix:
            if items is False:
                self._at_most(len(prefix), out)
            left.append("prefixItems" if "prefixItems" in schema else "items")
            others: list[Any] = [items] if isinstance(items, dict) else []
            items = {"anyOf": [*prefix, *others]}
        if items is True and not (self._profile.closed or self._profile.nullable):
            return True
        inside = self._node(items, f"{path}[]")
        if inside is None:
            return self._empty(out)
        out["items"] = inside
        return True

    def _heads(self, prefix: list[Any], items: Any, out: Schema, path: str) -> bool:
        """The first items, each with a schema of its own, and the others."""
        heads = [self._node(one, f"{path}[{index}]") for index, one in enumerate(prefix)]
        if None in heads:
            return False
        out["prefixItems"] = heads
        if items is True:
            return True
        inside = self._node(items, f"{path}[]")
        if inside is None:
            return self._at_most(len(heads), out)
        out["items"] = inside
        return True

    def _empty(self, out: Schema) -> bool:
        """An array that can only be empty, if it may be."""
        if self._profile.nullable:
            out["items"] = {"type": "string"}
        return "maxItems" in self._profile.keywords and self._at_most(0, out)

    def _at_most(self, size: int, out: Schema) -> bool:
        """Bound an array, where that can be said; whether that leaves any."""
        if "maxItems" in self._profile.keywords:
            out["maxItems"] = min(size, out.get("maxItems", size))
        return out.get("minItems", 0) <= size


def _last(pointer: str) -> str:
    """The last step of a pointer, for a name."""
    return pointer.rpartition("/")[2] or "root"


def _note(notes: dict[str, None], path: str, what: str) -> None:
    notes[f"{path}: {what}"] = None
