"""Find the program, and make its environment: its own Python, never QGIS's."""

import json
import os

from qgis.core import QgsSettings

SETTING = "DECR_SCENE_PYTHON"
"""Name in Processing's settings, and of the environment variable that is read after it."""

_FOREIGN = ("PYTHON", "GDAL_", "PROJ_", "QT_", "QGIS_", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CONDA")
"""Beginnings of the variables that QGIS sets for itself."""


def installed():
    """Read the notes of ``decr-scene qgis install``: its Python, its version, its models."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "installed.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def path():
    """Return the Python or the program, of the settings, the environment, or the plugin's installation."""
    chosen = QgsSettings().value(f"Processing/Configuration/{SETTING}", "") or ""
    return str(chosen).strip() or os.environ.get(SETTING, "") or installed().get("python", "")


def command(*arguments):
    """Return a call of the program, as a list of words."""
    program = path()
    name = os.path.basename(program).lower()
    own = name.startswith("python")
    return [program, "-I", "-m", "decr_scene.pipeline", *arguments] if own else [program, *arguments]


def trouble():
    """Return why the program cannot be run, for a message; ``None``: it can."""
    program = path()
    settings_page = "Settings > Options > Processing > Providers > decr-scene"
    if not program:
        return (
            "The program decr-scene is not known: install it in a Python of its own, run "
            f"'decr-scene qgis install' there, or name that Python under {settings_page}."
        )
    if not (os.path.isfile(program) and os.access(program, os.X_OK)):
        return (
            f"{program} is no program that can be run: name the Python of decr-scene under {settings_page}."
        )
    return None


def models():
    """Return the names of the models."""
    return installed().get("models") or ["default", "rgb", "rice2", "fill", "identity"]


def environment():
    """Return the environment of the program, without the variables of QGIS's Python, GDAL and Qt."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    return {**inherited, "DECR_SCENE_END_WITH_STDIN": "1", "PYTHONIOENCODING": "utf-8"}
