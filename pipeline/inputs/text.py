"""Decode texts of any encoding, declared or not, and pass them on without a change of a byte.

Bytes that are no UTF-8, and characters that XML does not allow, are carried through Python's strings and its
XML as private characters, and become the same bytes again when the text is written: `carried` and `released`.
Texts that are read for their meaning are decoded as they declare, or else as the most likely encoding:
`decoded`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET

_BYTES, _CHARACTERS = 0x10FE00, 0x10FD00
"""Private characters: a byte of 0x80 to 0xFF; a control character, U+FFFE or U+FFFF."""

_CONTROLS = {code: code for code in range(32) if chr(code) not in "\t\n\r"} | {0xFFFE: 0xFE, 0xFFFF: 0xFF}
_CARRY = {0xDC00 + byte: _BYTES + byte for byte in range(0x80, 0x100)}
_CARRY |= {code: _CHARACTERS + place for code, place in _CONTROLS.items()}
_RELEASE = {private: code for code, private in _CARRY.items()}
_OWN = {private: "".join(chr(_BYTES + byte) for byte in chr(private).encode()) for private in _RELEASE}
"""Such a private character that a text has of its own, as its bytes."""

_CARRIED: dict[int, int | str] = {**_CARRY, **_OWN}

_MARKS = (
    *((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32-le"), (b"\x00\x00\xfe\xff", "utf-32-be")),
    *((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")),
)
_LONGEST_MARK = 8
"""Bytes in which a mark of the order of bytes and one character are."""

_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"']", re.IGNORECASE)
_DECLARATION = re.compile(r"^\s*<\?xml.*?\?>", re.DOTALL)
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "gb_2312-80": "gb18030", "iso-8859-1": "cp1252"}
"""Encodings to decode with: files that declare the narrower one use characters of the wider."""


def carried(raw: bytes) -> str:
    """Convert any bytes to a text that XML allows.

    UTF-8 is decoded.
    """
    return raw.decode("utf-8", "surrogateescape").translate(_CARRIED)


def released(text: str) -> bytes:
    """Return the bytes that were `carried`, or those of any other text in UTF-8."""
    return text.translate(_RELEASE).encode("utf-8", "surrogateescape")


def decoded(raw: bytes, declared: str | None = None) -> str:
    """Decode bytes by their byte order mark, as declared, as UTF-8, or as the most likely encoding."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, "replace")
    name = (declared or "utf-8").lower()
    for encoding in (_SUPERSETS.get(name, name), "utf-8", "gb18030", "cp1252"):
        try:
            return raw.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return raw.decode("latin-1")


def readable(text: str) -> str:
    """Convert a `carried` text to a readable one."""
    raw = released(text)
    return text if raw == text.encode("utf-8", "surrogatepass") else decoded(raw)


def xml_root(raw: bytes) -> ET.Element:
    """Parse an XML document, in any encoding that Python knows, to its root.

    Raises:
        ParseError: It is no XML, or not whole.
    """
    return ET.fromstring(_xml_text(raw).translate(_CARRY))


def xml_file_root(path: Path) -> ET.Element | None:
    """Parse an XML file to its root, or return ``None`` if it is none, or cannot be read."""
    try:
        return xml_root(path.read_bytes())
    except (OSError, ET.ParseError):
        return None


def xml_in_utf8(raw: bytes) -> bytes | None:
    """Convert an XML document to UTF-8, or return ``None`` for what is none or in no other encoding."""
    declared = _declared(raw)
    if declared is None and not decoded(raw[:_LONGEST_MARK]).startswith("<"):
        return None
    in_utf8 = declared is None or declared.lower() == "utf-8"
    marked = any(raw.startswith(mark) for mark, encoding in _MARKS if encoding != "utf-8")
    return None if in_utf8 and not marked else _xml_text(raw).encode()


def _xml_text(raw: bytes) -> str:
    """Decode an XML document, and take its declaration away."""
    return _DECLARATION.sub("", decoded(raw, _declared(raw)).lstrip("\ufeff \t\r\n"))


def _declared(raw: bytes) -> str | None:
    """Return the encoding that an XML document declares, if it does."""
    declaration = _DECLARED.match(raw)
    return declaration.group(1).decode("ascii") if declaration else None


def json_text(raw: bytes) -> str:
    """Decode JSON: UTF-8, -16 or -32 by its first bytes, else the most likely encoding."""
    return decoded(raw, json.detect_encoding(raw)).lstrip("\ufeff")


def plain(text: str) -> str:
    """Escape control characters of a text for a terminal, also those that change its direction."""
    return "".join(c if c in "\n\t" or c.isprintable() else _spelled(c) for c in text)


def plain_line(text: str) -> str:
    """Escape as `plain`, and ends of lines, too: a name may have some."""
    return plain(text).replace("\n", "\\n")


def _spelled(character: str) -> str:
    code = ord(character)
    if code in _RELEASE:
        return plain(chr(_RELEASE[code]))
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) == "Zs":  # spaces of other kinds
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
