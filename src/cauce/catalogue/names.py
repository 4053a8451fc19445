"""The ways to read a model's name, and the small globs that the catalogue is written in."""

import re

_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_DATE_BEHIND = re.compile(r"[-@](?:20\d{6}|20\d\d-\d\d-\d\d)$")
_PATH = "models/"


def forms(model: str) -> tuple[str, ...]:
    """How a price list may call `model`: as it is, without a path (`models/…`), with its date spelt out, without its date."""
    name = model.lower()
    found = [name]
    if _PATH in name:
        found.append(name.rpartition(_PATH)[2])
    found += [_COMPACT_DATE.sub(r"-\1-\2-\3", one) for one in found]
    found += [_DATE_BEHIND.sub("", one) for one in found]
    return tuple(dict.fromkeys(found))


def own_names(model: str) -> tuple[str, ...]:
    """What `model` is called whoever serves it: the last part of its name, and the same without its date."""
    return tuple(dict.fromkeys([form.rpartition("/")[2] for form in forms(model)]))


def matches(glob: str, name: str) -> bool:
    """Whether `name` is what `glob` says, where `*` stands for anything and nothing else has a meaning."""
    head, *middle = glob.split("*")
    if not middle:
        return name == glob
    tail = middle.pop()
    if not name.startswith(head) or not name.endswith(tail) or len(name) < len(head) + len(tail):
        return False
    place, end = len(head), len(name) - len(tail)
    for piece in middle:
        place = name.find(piece, place, end)
        if place < 0:
            return False
        place += len(piece)
    return True
