"""Take addresses apart: the name of the file, what identifies it, and secrets, which are not written down.

A signed address (of S3, Azure, Google or others) is good for whoever has it. Secrets in an address are the
values of such parameters, and a user with a password before the host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
"""What stands in the place of a secret."""

_SECRETS = (
    r"(?:[\w.~-]*(?:signature|credentials?|token|secret|passw(?:or)?d|authorization|api[-_]?key"
    r"|access[-_]?key(?:[-_]?id)?|subscription[-_]key)|sig|key|pwd|auth|key-pair-id|policy|jwt|sas)"
)
_SECRET = re.compile(_SECRETS, re.IGNORECASE)
_END = r"(?=[:,;.)]*(?:[&#\s\"'<>]|$))"
_PLAIN = re.compile(rf"([?&;]{_SECRETS}=)[^&#\s\"'<>]*?{_END}", re.IGNORECASE)
_ENCODED = re.compile(rf"((?:%3F|%26){_SECRETS}%3D)(?:(?!%26)[^&#\s\"'<>])*", re.IGNORECASE)
_USER = re.compile(r"(://|%3A%2F%2F)[^/\s?#\"'<>]+@", re.IGNORECASE)
_ADDRESS = re.compile(r"://|/vsi|%3A%2F%2F", re.IGNORECASE)

_OF_AZURE = re.compile(r"s[etpvrs]|spr|sip|srt|ses|sk[teksv]|skoid|sktid|sdd|saoid|suoid|scid")
"""Parameters of Azure's that change with the ``sig``."""

_OF_SIGNATURES = re.compile(r"x-(?:amz|goog)-.*|expires|googleaccessid", re.IGNORECASE)
"""Parameters that change when an address is signed anew, besides the secrets."""


def without_secrets(text: str) -> str:
    """Hide the secrets of all addresses in a text, and nothing where there is no address."""
    if not _ADDRESS.search(text):
        return text
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    return _ENCODED.sub(rf"\1{HIDDEN}", _PLAIN.sub(rf"\1{HIDDEN}", text))


def plain_values_without_secrets(values: Any) -> Any:
    """Hide the secrets in the texts of plain values, also in lists, tuples and dictionaries."""
    if isinstance(values, str):
        return without_secrets(values)
    if isinstance(values, dict):
        return {name: plain_values_without_secrets(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        hidden = [plain_values_without_secrets(value) for value in values]
        return hidden if isinstance(values, list) else tuple(hidden)
    return values


@contextmanager
def secrets_hidden() -> Iterator[None]:
    """Hide the secrets in the messages of errors, for a ``with``."""
    try:
        yield
    except Exception as error:
        hide_secrets(error)
        raise


def hide_secrets(error: BaseException | None) -> None:
    """Hide the secrets in the message of an error, and in those of its causes."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(isinstance(value, str) and without_secrets(value) != value for value in error.args):
            error.args = tuple(map(plain_values_without_secrets, error.args))
        error = error.__cause__ or error.__context__


def without_signature(address: str) -> str:
    """Return what identifies the file at an address: it without secrets and whatever else a signature has."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    pairs = [pair for pair in parts.query.split("&") if pair]
    names = [unquote(pair.partition("=")[0]).lower() for pair in pairs]
    signed = any(map(_SECRET.fullmatch, names))
    kept = [pair for pair, name in zip(pairs, names, strict=True) if not (signed and _renewed(name, names))]
    place = parts.netloc.rpartition("@")[2]
    if kept == pairs and place == parts.netloc:
        return address
    return parts._replace(query="&".join(kept), netloc=place).geturl()


def _renewed(name: str, names: list[str]) -> bool:
    """Return whether a parameter is another one when the address is signed anew."""
    if _SECRET.fullmatch(name) or _OF_SIGNATURES.fullmatch(name):
        return True
    return "sig" in names and _OF_AZURE.fullmatch(name) is not None


def last_part(name: str | os.PathLike[str]) -> str:
    """Return the name of a file without its folders; of an address without what follows its path."""
    text = os.fspath(name)
    if "://" not in text:
        return without_secrets(Path(text).name)
    return unquote(re.split("[?#]", text)[0].rstrip("/").rpartition("/")[2])
