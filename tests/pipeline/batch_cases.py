"""Folders of scenes for the tests of batches, and what is to be seen in them."""

import json
import os

import numpy as np
from raster_cases import plain

from decr_scene.pipeline.batch.ledger import LEDGER, LOCK

IDENTITY = {"model": "identity"}


def scene(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return plain(path, (40, 50), 1, "uint16")


def statuses(report):
    return [entry.status for entry in report.scenes]


def inputs(report):
    return [os.path.basename(entry.input) for entry in report.scenes]


def stamps(folder):
    """What changes when a file is written, by name, without what belongs to the run."""
    files = (path for path in folder.rglob("*") if path.name not in (LEDGER, LOCK))
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.is_file()}


def seen(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != LOCK)


def outputs(*names):
    """What a finished batch of these scenes leaves."""
    kinds = (".json", ".qml", ".tif", "_provenance.qml", "_provenance.tif")
    return sorted([LEDGER, *(f"{name}{kind}" for name in names for kind in kinds)])


def ledger_of(dst):
    return json.loads((dst / LEDGER).read_text())


class Darker:
    """A restorer that has a name of its own, so that one run knows what another made with it."""

    def __init__(self, told=None):
        self.told, self.calls = told or (lambda number: None), 0

    def __repr__(self):
        return "Darker()"

    def __call__(self, tiles, noise):
        self.calls += 1
        self.told(self.calls)
        return np.clip(tiles - 0.2 + 0.01 * noise, -1, 1)
