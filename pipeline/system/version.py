"""The version of the program, as it is installed."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

__version__ = version("decr-scene")

_PACKAGE = Path(__file__).parents[1]


@cache
def code_here() -> str:
    """Return the version of this process's program, with a digest of its code as it is now on the disk."""
    digest = hashlib.sha256()
    for room in (_PACKAGE, _PACKAGE.with_name("models")):
        for path in sorted(room.rglob("*.py")):
            digest.update(path.relative_to(room.parent).as_posix().encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return f"{__version__}, code {digest.hexdigest()[:12]}"
