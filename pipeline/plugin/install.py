"""Install the plugin into QGIS's folder of plugins, or into an archive that QGIS installs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from decr_scene.pipeline.errors import OutputError, OutputExistsError
from decr_scene.pipeline.files import make_folder, write_whole

SOURCE = Path(__file__).with_name("qgis-plugin")

NAME = "decr_scene_qgis"
"""Of the plugin's folder, which is a package to QGIS."""

INSTALLED = "installed.json"
"""File with the path of the program that installed the plugin."""


def install(folder: Path | None = None, profile: str = "default", overwrite: bool = False) -> list[Path]:
    """Copy the plugin into QGIS's profiles, or into a folder of plugins.

    Args:
        folder: The folder of plugins; ``None``: that of the profile in every QGIS that this user has run.
        profile: Name of the profile.
        overwrite: Replace a folder of this name that is not ours; an older plugin of ours is replaced anyway.

    Returns:
        Where it is now.

    Raises:
        OutputError: There is no QGIS profile, or its folder cannot be written to.
        OutputExistsError: There is another file or folder.
    """
    folders = [folder] if folder is not None else [home / profile / "python/plugins" for home in _homes()]
    if not folders:
        raise OutputError("no profile of QGIS was found: start QGIS once, or name its plugins with --folder")
    return [_install(place / NAME, overwrite) for place in folders]


def write_archive(path: Path, overwrite: bool = False) -> None:
    """Write the plugin as an archive, for *Install from ZIP* in QGIS.

    Raises:
        OutputExistsError: There is a file of this name.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another name, or replace it with --overwrite")
    with write_whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _files():
            archive.writestr(f"{NAME}/{name}", content)


def _install(place: Path, overwrite: bool) -> Path:
    if place.exists() and not _is_ours(place) and not overwrite:
        raise OutputExistsError(f"{place} exists and is not of this program: replace it with --overwrite")
    make_folder(place.parent, "--folder")
    fresh = place.with_name(f".{NAME}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        for name, content in _files():
            (fresh / name).write_bytes(content)
        (fresh / INSTALLED).write_text(json.dumps(_installation(), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    except OSError as error:
        raise OutputError(f"{place} cannot be written ({error.strerror}): choose another --folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _is_ours(place: Path) -> bool:
    try:
        return "name=decr-scene" in (place / "metadata.txt").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the files.

    The version in the metadata is the program's.
    """
    for path in sorted(SOURCE.iterdir()):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "metadata.txt":
                content = content.replace(b"@VERSION@", version("decr-scene").encode())
            yield path.name, content


def _installation() -> dict[str, object]:
    from decr_scene.models.bundled import bundled_models

    models = [*bundled_models(), "fill", "identity"]
    return {"python": sys.executable, "version": version("decr-scene"), "models": models}


def _homes() -> list[Path]:
    """List the existing folders of profiles of QGIS 3 and 4."""
    user = Path.home()
    roots = {
        "win32": Path(os.environ.get("APPDATA", user / "AppData/Roaming")),
        "darwin": user / "Library/Application Support",
    }
    root = roots.get(sys.platform, Path(os.environ.get("XDG_DATA_HOME") or user / ".local/share"))
    profiles = [root / "QGIS" / generation / "profiles" for generation in ("QGIS3", "QGIS4")]
    return [path for path in profiles if path.is_dir()]
