"""Warnings of libraries of what is legitimate input here, which the program and its workers do not repeat."""

from __future__ import annotations

import logging
import os
import warnings

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
