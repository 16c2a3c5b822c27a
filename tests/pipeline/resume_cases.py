"""Scenes, and what a run of theirs leaves behind, for the tests of going on."""

from raster_cases import plain


def large(folder):
    return plain(folder / "scene.tif", (1500, 700), 1)


def little(folder):
    return plain(folder / "scene.tif", (300, 280), 1)


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
