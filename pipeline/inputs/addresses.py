"""Take addresses apart: the name of the file, what identifies it, and secrets, which are not written down.

A signed address (of S3, Azure, Google or others) is good for whoever has it. Secrets in an address are the
values of such parameters, and a user with a password before the host.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
"""What stands in the place of a secret, with a short digest behind it where secrets tell two files apart."""

_SECRET = re.compile(
    r"[\w.~-]*(?:signature|credentials?|token|secret|passw(?:or)?d|authorization|cookie|userpwd|session(?:[-_]?id)?"
    r"|api[-_]?key|access[-_]?key(?:[-_]?id)?|subscription[-_]key)"
    r"|sig|key|pwd|pass|auth|key-pair-id|policy|jwt|sas|hdnea|hdnts|hmac",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?P<mark>[?&;#]|%3F|%26|%3B|%23)(?P<name>(?:[\w.~-]|%(?!3D|3F|26|3B|23)[0-9A-F]{2})+)(?P<equals>=|%3D)",
    re.IGNORECASE,
)
_END = r"(?=[:,;.)]*(?:[&#\s\"'<>]|$))"
_PLAIN = re.compile(rf"[^&#\s\"'<>]*?(?:{_END}|(?=;[a-z][\w.~-]*=[^=&]))", re.IGNORECASE)
_ENCODED = re.compile(rf"[^&#\s\"'<>]*?(?:{_END}|(?=%26|%23))", re.IGNORECASE)
_OF_GDAL = re.compile(r"[^&\n]*")
_ALREADY = re.compile(r"\*\*\*(?:[0-9a-f]{8})?")
_USER = re.compile(
    r"(?P<before>://)(?P<user>[^/\s?#\"'<>]+)(?P<after>@|%40)"
    r"|(?P<before_>%3A%2F%2F)(?P<user_>(?:(?!%2F|%3F|%23)[^/\s?#\"'<>])+)(?P<after_>@|%40)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"://|/vsi|%3A%2F%2F", re.IGNORECASE)

_SCHEMES = (
    (("x-amz-signature",), r"x-amz-.*"),
    (("x-goog-signature",), r"x-goog-.*"),
    (("sig", "sv", "se|si"), r"sig|s[etpvrs]|spr|sip|srt|ses|sk[teksv]|skoid|sktid|sdd|saoid|suoid|scid"),
    (("signature", "key-pair-id", "expires|policy"), r"signature|key-pair-id|expires|policy"),
    (
        ("signature", "awsaccesskeyid|googleaccessid", "expires"),
        r"signature|awsaccesskeyid|googleaccessid|expires|x-amz-security-token",
    ),
)
"""Of each kind of signature the parameters by which it is known, and those that change with it.

They are of S3, Google, Azure, CloudFront, and of S3 and Google as they were before.
"""


@dataclass(frozen=True)
class _Parameter:
    """A parameter in a text.

    Args:
        begin: Where it begins, behind ``?`` or ``&``.
        value: Where its value begins.
        end: Where its value ends.
        name: In small letters.
        query: Which query of the text it is of.
    """

    begin: int
    value: int
    end: int
    name: str
    query: int

    @property
    def is_secret(self) -> bool:
        """Return whether its value is a secret."""
        return _SECRET.fullmatch(self.name) is not None


def _parameters(text: str) -> Iterator[_Parameter]:
    """Find the parameters of all queries in a text, also those of an address within another."""
    query = at = 0
    gdal_until = -1  # in GDAL's own names a value may have blanks
    while found := _NAME.search(text, at):
        if found["mark"].upper() in ("?", "%3F"):
            query += 1
            if re.search(r"/vsi\w+$", text[: found.start()], re.IGNORECASE):
                gdal_until = (text + "\n").index("\n", found.start())
        if len(found["equals"]) > 1 or len(found["mark"]) > 1:
            ending = _ENCODED
        else:
            ending = _OF_GDAL if found.start() < gdal_until else _PLAIN
        value = ending.match(text, found.end())
        end = found.end() if value is None else value.end()
        parameter = _Parameter(found.start("name"), found.end(), end, unquote(found["name"]).lower(), query)
        yield parameter
        at = end if parameter.is_secret else found.end()


def _renewed(parameters: list[_Parameter]) -> set[_Parameter]:
    """Return those that are others when an address is signed anew."""
    names: dict[int, set[str]] = {}
    for each in parameters:
        names.setdefault(each.query, set()).add(each.name)
    return {
        each
        for each in parameters
        for marks, changing in _SCHEMES
        if re.fullmatch(changing, each.name)
        and all(not names[each.query].isdisjoint(mark.split("|")) for mark in marks)
    }


def _digested(secret: str) -> str:
    """Return what stands for a secret and tells it from another one."""
    if _ALREADY.fullmatch(secret):
        return secret
    return HIDDEN + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _without_user(found: re.Match[str]) -> str:
    before, user, after = (found[name] or found[f"{name}_"] for name in ("before", "user", "after"))
    name, *_ = re.split(":|%3A", user, maxsplit=1, flags=re.IGNORECASE)  # nothing of a password is told
    return f"{before}{_digested(name)}{after}"


def without_secrets(text: str) -> str:
    """Hide the secrets of all addresses in a text, and nothing where there is no address.

    A secret that is part of no known signature tells two files apart, so a short digest stands for it.
    """
    if not _ADDRESS.search(text):
        return text
    text = _USER.sub(_without_user, text)
    parameters = list(_parameters(text))
    renewed = _renewed(parameters)
    for each in reversed(parameters):
        secret = text[each.value : each.end]
        if each.is_secret and secret:
            hidden = HIDDEN if each in renewed else _digested(secret)
            text = text[: each.value] + hidden + text[each.end :]
    return text


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
    """Hide the secrets in an error's message, notes and file names, and in those of all its causes."""
    seen: set[int] = set()
    rest: list[Any] = [error]
    while rest:
        error = rest.pop()
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        if any(isinstance(value, str) and without_secrets(value) != value for value in error.args):
            error.args = tuple(map(plain_values_without_secrets, error.args))
        for name in ("filename", "filename2", "reason", "msg", "url", "__notes__"):
            with suppress(AttributeError, KeyError):  # some are of another attribute, and only read
                value = getattr(error, name)
                if isinstance(value, (str, list)):
                    setattr(error, name, plain_values_without_secrets(value))
        grouped = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        rest += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args, *grouped]


def without_signature(address: str) -> str:
    """Return what identifies the file at an address: it with its secrets hidden, and without a signature."""
    address = without_secrets(address)
    renewed = _renewed(list(_parameters(address)))
    for each in sorted(renewed, key=lambda each: each.begin, reverse=True):
        address = address[: each.begin] + address[each.end :]
    return re.sub(r"[?&;]+(?=#|$)", "", re.sub(r"([?&;])[&;]+", r"\1", address)) if renewed else address


def last_part(name: str | os.PathLike[str]) -> str:
    """Return the name of a file without its folders; of an address without what follows its path."""
    text = os.fspath(name)
    if "://" not in text:
        return Path(without_secrets(text)).name
    path = re.split("[?#]", text)[0]
    if "://" in path:
        path = path.partition("://")[2].partition("/")[2]
    return unquote(path.rstrip("/").rpartition("/")[2])
