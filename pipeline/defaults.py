"""Define defaults and choices of options: plain values, quick to import."""

from __future__ import annotations

MODEL = "default"
"""The bundled model that is taken."""

OVERLAP = 64
"""Least overlap of neighbouring tiles, px."""

BATCH_SIZE = 8
"""Tiles in a batch."""

BLOCKSIZE = 512
"""Side of the blocks of an output, px."""

COMPRESSIONS = ("auto", "deflate", "zstd", "lzw", "lzma", "none")
"""How an output may be compressed; ``auto``: as the input, where that is lossless."""

SCENES = "*.tif,*.tiff,*.jp2,*.vrt"
"""Names of the scenes of a folder, comma-separated."""

BLENDS = ("feather", "joint")
"""How tiles become one picture."""

DETECTORS = ("auto", "model", "ukis", "none")
"""Detectors of cloud in a whole scene."""
