"""Where the program is, and the environment it gets: its own Python, never QGIS's."""

import json
import os

from qgis.core import QgsSettings

SETTING = "DECR_SCENE_PYTHON"
"""Of Processing's settings, and the environment variable that is asked after it."""

_FOREIGN = ("PYTHON", "GDAL_", "PROJ_", "QT_", "QGIS_", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CONDA")
"""How names of variables begin that QGIS sets for itself."""


def installed():
    """What ``decr-scene qgis install`` has noted: its Python, its version, its models."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "installed.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def path():
    """The Python or the program: of the settings, the environment, or the one that installed the plugin."""
    chosen = QgsSettings().value(f"Processing/Configuration/{SETTING}", "") or ""
    return str(chosen).strip() or os.environ.get(SETTING, "") or installed().get("python", "")


def command(*arguments):
    """A call of the program, as a list of words."""
    found = path()
    name = os.path.basename(found).lower()
    own = name.startswith("python")
    return [found, "-I", "-m", "decr_scene.pipeline", *arguments] if own else [found, *arguments]


def trouble():
    """Why there is no program, in words for a person; ``None``: there is one."""
    found = path()
    where = "Settings > Options > Processing > Providers > decr-scene"
    if not found:
        return (
            "The program decr-scene is not known: install it in a Python of its own, run "
            f"'decr-scene qgis install' there, or name that Python under {where}."
        )
    if not (os.path.isfile(found) and os.access(found, os.X_OK)):
        return f"{found} is no program that can be run: name the Python of decr-scene under {where}."
    return None


def models():
    """Names of the models."""
    return installed().get("models") or ["default", "rgb", "rice2", "fill", "identity"]


def environment():
    """Of the child: without what QGIS sets for its own Python, GDAL and Qt."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    return {**kept, "DECR_SCENE_END_WITH_STDIN": "1", "PYTHONIOENCODING": "utf-8"}
