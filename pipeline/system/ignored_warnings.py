"""Warnings of libraries of what is legitimate input here, which the program and its workers do not repeat."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

WITHOUT_GEOREFERENCING = ("Dataset has no geotransform", "The given matrix is equal to Affine.identity")
"""What rasterio says, to begin with, of rasters without georeferencing."""


def ignore_warnings() -> None:
    """Have Python ignore them in this process: for a program or a worker, not for a library."""
    for message in WITHOUT_GEOREFERENCING:
        warnings.filterwarnings("ignore", message=message)


def silence_libraries() -> None:
    """Keep from standard error what GDAL and asyncio write there themselves, beside the one line of ours.

    For a program that is a process of its own: its workers inherit it, and nobody else.
    """
    os.environ.setdefault("CPL_LOG", os.devnull)
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    sys.unraisablehook, sys.excepthook = _but_for_gdal_log, _but_for_gdal_message


def _but_for_gdal_log(trouble: UnraisableHookArgs) -> None:
    """Report an exception that has no caller, unless it is of a message of GDAL's that is no UTF-8."""
    if not (isinstance(trouble.exc_value, UnicodeDecodeError) and "rasterio._env" in str(trouble.object)):
        sys.__unraisablehook__(trouble)


def _but_for_gdal_message(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an exception, unless it is the same without its traceback, which comes first."""
    if trace is not None or not isinstance(error, UnicodeDecodeError):
        sys.__excepthook__(kind, error, trace)
