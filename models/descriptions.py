"""Describe configurations in one line each, by which runs are told apart, and compare them with such lines.

A line is kept in the checkpoint of a run. One of an earlier version lacks the keys that are newer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")


def describe(config: Any) -> str:
    """Describe a configuration, a dataclass, in one line."""
    return _described(config, None)


def is_same(config: Any, description: str) -> bool:
    """Return whether a description, by this or an earlier version, is of an equal configuration.

    A key that the description does not know is no difference as long as it has its default.
    """
    return _described(config, description) == description


def unlike(config: Any, description: str, keys: tuple[str, ...]) -> list[str]:
    """List ``key=value`` of some keys of a configuration, or of keys in them, unlike in a description."""
    parts = _parts_of(description)
    return [told for key in keys for told in _otherwise(key, getattr(config, key), parts.get(key, ""))]


def _otherwise(name: str, value: Any, text: str) -> Iterator[str]:
    if not dataclasses.is_dataclass(value):
        if describe(value) != text:
            yield f"{name}={describe(value)}"
        return
    parts = _parts_of(text)
    for each in dataclasses.fields(value):
        own = getattr(value, each.name)
        if each.name in parts or not _is_newer_default(each, own, ""):
            yield from _otherwise(f"{name}.{each.name}", own, parts.get(each.name, ""))


def _parts_of(text: str) -> dict[str, str]:
    """Cut the description of a dataclass into those of its keys."""
    inside, parts, depth, start = text[text.find("(") + 1 : -1], [], 0, 0
    for place, letter in enumerate(_QUOTED.sub(lambda quoted: "_" * len(quoted[0]), inside)):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(inside[start:place])
            start = place + 1
    pairs = (part.strip().partition("=") for part in [*parts, inside[start:]] if "=" in part)
    return {name: value for name, _, value in pairs}


def _described(value: Any, description: str | None) -> str:
    if isinstance(value, tuple):
        parts = [_described(part, description) for part in value]
        return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    fields = [
        f for f in dataclasses.fields(value) if not _is_newer_default(f, getattr(value, f.name), description)
    ]
    inside = ", ".join(f"{f.name}={_described(getattr(value, f.name), description)}" for f in fields)
    return f"{type(value).__name__}({inside})"


def _is_newer_default(field: dataclasses.Field[Any], value: Any, description: str | None) -> bool:
    """Return whether a key is at its default and newer than a description."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return description is not None and value == default and not re.search(rf"\b{field.name}=", description)
