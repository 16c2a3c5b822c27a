"""Public names that are imported on first use: ``--help`` waits neither for torch nor for GDAL."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exporter(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the module ``__getattr__`` of a package (PEP 562).

    Args:
        package: Full name of the package.
        homes: Public name to the module of the package that has it.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
