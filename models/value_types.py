"""Read TOML, and build dataclasses of its tables, whose values are checked by type: files have no types."""

from __future__ import annotations

import codecs
import dataclasses
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

DEEPEST, WIDEST = 64, 1 << 16
"""Greatest number of levels and blocks of a network, and of channels: a damaged file may ask for any."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_toml_text(path: Path) -> str:
    """Read the text of a TOML file, which is UTF-8, or UTF-16 with a byte order mark as Windows writes it.

    Raises:
        OSError: It cannot be read.
        ValueError: It is of another encoding, or a pipe, whose end could be waited for in vain.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is a pipe or a device, expected a file: write it to one first")
    raw = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in {encoding}, as TOML is: save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError("it has characters of no byte but 0, as UTF-16 without its mark: save it as UTF-8")
    return text


def check_types(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Refuse values of another type than the fields of a dataclass have, and numbers that are none.

    Raises:
        TypeError: It names the field, what was found and what was expected.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _is(value, hints[name]):
            raise TypeError(f"{name} is {value!r}, expected {_words(hints[name])}")


def table_in(values: dict[str, Any], key: str, above: str = "") -> dict[str, Any]:
    """Return a table in another, which messages call ``above``; an empty one if it is not there."""
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(f"{above}{key} is {value!r}, expected a table")
    return value


def build(kind: type[Any], table: Any, name: str = "") -> Any:
    """Build a dataclass of a parsed table, which messages call ``name``; without one it is the whole file.

    Raises:
        TypeError: It is no table, or a value is of another type.
        ValueError: A key is unknown, or values do not fit together.
    """
    if not isinstance(table, dict):
        raise TypeError(f"{name} is {table!r}, expected a table")
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        place = f" in {name}" if name else ""
        raise ValueError(f"unknown keys {unknown}{place}, expected some of {sorted(known)}")
    try:
        for key, value in table.items():
            _check_numbers(key, value)
        check_types(kind, {key: _frozen(value, inside_tables=True) for key, value in table.items()})
        return kind(**{key: _frozen(value) for key, value in table.items()})
    except (TypeError, ValueError) as error:
        if not name:
            raise
        told = TypeError if isinstance(error, TypeError) else ValueError
        raise told(f"{name}: {error}") from error


def _frozen(value: Any, inside_tables: bool = False) -> Any:
    """Return lists as tuples; what is kept has lists inside tables, as the descriptions of runs do."""
    if isinstance(value, dict) and inside_tables:
        return {key: _frozen(part, True) for key, part in value.items()}
    return tuple(_frozen(v, inside_tables) for v in value) if isinstance(value, list) else value


def _check_numbers(key: str, value: Any) -> None:
    """Refuse a whole number that no TOML has, and that nothing here can count to."""
    if isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(key, part)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{key} has a number of {len(str(abs(value)))} digits, expected one within 64 bits")


def check_rising(recipe: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Refuse ranges of a recipe, by name, that do not rise within their bounds.

    Raises:
        ValueError: It names the range, its bounds and its ends.
    """
    for name, (least, most) in bounds.items():
        low, high = getattr(recipe, name)
        if not least <= low <= high <= most:
            raise ValueError(f"{name} must rise within [{least:g}, {most:g}], got ({low:g}, {high:g})")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number out of its range, bounds included.

    Raises:
        ValueError: It names the value and its bounds.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low} to {high}, got {value}")


def _words(hint: Any) -> str:
    """Say what a value of this type is, as a reader of a file knows it."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inside))
    if origin is tuple and inside[1:] == (Ellipsis,):
        return f"a list, each {_words(inside[0])}"
    if origin is tuple:
        return f"a list of {len(inside)}: {', '.join(map(_words, inside))}"
    if origin is Mapping and inside[1] is not Any:
        return f"a table, each {_words(inside[1])}"
    if origin is not None:
        return "a table"
    return _WORDS.get(hint, "a table")


def _is(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in inside)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(inside) == 2 and inside[1] is Ellipsis:
            return all(_is(part, inside[0]) for part in value)
        return len(value) == len(inside) and all(map(_is, value, inside))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_is(part, inside[1]) for part in value.values())
    if hint is Any:
        return True
    if hint is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None:
        return value is None
    plain = origin or hint
    return not isinstance(plain, type) or isinstance(value, plain)
