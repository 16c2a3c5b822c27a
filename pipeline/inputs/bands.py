"""Name bands by descriptions, colour interpretation or ``--bands``, and select those of a model.

A role is ``blue``, ``green``, ``red``, ``nir`` or ``alpha``. A band without one keeps its own description, or
has the name ``''``. Names are compared by words, so that ``Band 4 (Near Infrared)``, ``TOA_blue`` and
``NIR1`` are recognised and ``red edge`` is not red.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from decr_scene.pipeline.errors import BandError

ROLES = ("blue", "green", "red", "nir", "alpha")

_EXACT = {
    **{role: role for role in ROLES},
    **{"b": "blue", "g": "green", "r": "red", "n": "nir", "a": "alpha"},
    **{"nir1": "nir", "near infrared": "nir", "nearinfrared": "nir", "infrared": "nir", "ir": "nir"},
}
_WORDS = {"blue": "blue", "green": "green", "red": "red", "nir": "nir", "nir1": "nir", "alpha": "alpha"}
_OTHER_WORDS = {"edge", "coastal", "yellow", "swir", "short", "shortwave", "mid", "thermal", "far", "deep"}
_NUMBERED = {"b2": "blue", "b3": "green", "b4": "red"}


def resolve_names(names: Sequence[str], option: str | None = None) -> tuple[str, ...]:
    """Name each band, or refuse.

    Args:
        names: Those in the file, one a band; ``''`` where it has none.
        option: ``--bands``, such as ``blue,green,red,nir`` or ``b,g,r,n``; it overrules the file.

    Returns:
        One a band: a role, else the band's own name, else ``''``.

    Raises:
        BandError: ``option`` has another number of bands or a role twice; or the raster has four bands or
            more, and none has a role.
    """
    if option is not None:
        return _from_option(option, len(names))
    resolved = name_bands(names)
    if len(resolved) == 3 and not any(resolved):
        return ("red", "green", "blue")  # as every viewer shows three bands, GDAL's drivers included
    if len(resolved) > 3 and not any(role in resolved for role in ROLES):
        raise BandError(
            f"{len(resolved)} bands and no way to tell them apart (found {_listed(resolved)}): "
            "say which is which with --bands, such as --bands blue,green,red,nir"
        )
    return resolved


def name_bands(descriptions: Sequence[str | None], colours: Sequence[str] = ()) -> tuple[str, ...]:
    """Find roles in descriptions, then in colour interpretations, without ever raising.

    Args:
        descriptions: One a band, as the file has them.
        colours: Names of GDAL's colour interpretations, lower case, one a band.

    Returns:
        As `resolve_names`; no role is given twice.
    """
    texts = [(text or "").strip() for text in descriptions]
    guesses = (_by_exact_name, _by_number, _by_words)
    roles: dict[int, str] = {}
    for guess in guesses:
        _add(roles, guess(texts))
    if colours:
        _add(roles, {i: _role_of_colour(colour) for i, colour in enumerate(colours)})
    return tuple(roles.get(i, text) for i, text in enumerate(texts))


def label(names: Sequence[str], index: int) -> str:
    """Return the name of a band (0-based) for messages, or its number from 1."""
    return names[index] or f"band {index + 1}"


def select_bands(
    resolved: Sequence[str], model_bands: Sequence[str], who: str = "the model", other: str = "another model"
) -> tuple[int, ...]:
    """Find the bands of a model.

    Args:
        resolved: As `resolve_names` returns them.
        model_bands: Names, in the model's order.
        who: What wants them, for a message.
        other: What may be chosen instead of it.

    Returns:
        Their 0-based positions, in the model's order; other bands are passed through.

    Raises:
        BandError: One is missing, or two bands have its name.
    """
    counts = Counter(resolved)
    unresolved = [name for name in model_bands if counts[name] != 1]
    if unresolved:
        raise BandError(
            f"{who} wants the bands {', '.join(model_bands)}, the scene has {_listed(resolved)}: "
            f"{_misfit(unresolved[0], counts)}; name the scene's bands with --bands or choose {other}"
        )
    return tuple(resolved.index(name) for name in model_bands)


def _from_option(option: str, count: int) -> tuple[str, ...]:
    texts = [text.strip() for text in option.split(",")]
    names = tuple(_EXACT.get(_words(text), text) for text in texts)
    if len(names) != count:
        raise BandError(
            f"--bands names {len(names)} bands ({option}), the scene has {count}: name each of them"
        )
    repeated = [role for role in ROLES if names.count(role) > 1]
    if repeated:
        raise BandError(f"--bands has {repeated[0]} twice ({option}): give each band its own name")
    return names


def _add(roles: dict[int, str], candidates: dict[int, str]) -> None:
    """Assign roles to bands that have none, where the role is free and only one band is a candidate."""
    counts = Counter(role for i, role in candidates.items() if i not in roles)
    assigned = set(roles.values())
    for i, role in candidates.items():
        if role and i not in roles and role not in assigned and counts[role] == 1:
            roles[i] = role


def _by_exact_name(texts: Sequence[str]) -> dict[int, str]:
    return {i: _EXACT.get(_words(text), "") for i, text in enumerate(texts)}


def _by_number(texts: Sequence[str]) -> dict[int, str]:
    """Read B2, B3, B4 as Sentinel-2 and Landsat 8 number them.

    NIR is B8 of the one and B5 of the other. Where there is a B1 too it may be an older Landsat, whose B1 is
    blue, unless there is a B8A or B9.
    """
    names = [re.sub(r"^((sr|toa)[ _])?b(and)?[ _]*0*(?=\d)", "b", text.lower()) for text in texts]
    if not {"b2", "b3", "b4"} <= set(names) or ("b1" in names and not {"b8a", "b9"} & set(names)):
        return {}
    nir = "b8" if "b8a" in names or "b5" not in names else "b5"
    return {i: {**_NUMBERED, nir: "nir"}.get(name, "") for i, name in enumerate(names)}


def _by_words(texts: Sequence[str]) -> dict[int, str]:
    return {
        i: _role_of_words(_words(text).replace("near infrared", "nir").split())
        for i, text in enumerate(texts)
    }


def _role_of_words(words: list[str]) -> str:
    roles = {_WORDS[word] for word in words if word in _WORDS}
    return roles.pop() if len(roles) == 1 and not _OTHER_WORDS & set(words) else ""


def _role_of_colour(colour: str) -> str:
    return colour if colour in ROLES else ""


def _words(text: str) -> str:
    """Return lower case, words split by one space: ``Near-Infrared`` -> ``near infrared``."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or f"band {i} unnamed" for i, name in enumerate(names, start=1))


def _misfit(name: str, counts: Counter[str]) -> str:
    return f"{counts[name]} bands are called {name}" if counts[name] else f"{name} is missing"


def display_bands(names: Sequence[str]) -> list[int]:
    """Choose 1-based bands for red, green and blue, or one band for grey, as `pictures.display_bands`."""
    from decr_scene.models.data import pictures  # which imports numpy: the help of a command does without

    return list(dict.fromkeys(index + 1 for index in pictures.display_bands(names)))
