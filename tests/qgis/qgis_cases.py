"""The QGIS and the GDAL of the system, and the environment that they get."""

import os
import shutil
import subprocess
from functools import lru_cache

PYTHON = "/usr/bin/python3"
INSTALL = "apt-get install --no-install-recommends qgis python3-qgis qgis-providers gdal-bin"


@lru_cache
def missing():
    """What this machine lacks, or ``None``."""
    tools = [tool for tool in ("gdalinfo", "gdal_translate", "gdaladdo") if shutil.which(tool) is None]
    if tools:
        return f"no {', '.join(tools)}"
    done = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, env=environment())
    return None if done.returncode == 0 else f"{PYTHON} has no qgis"


def environment():
    """Of a child process: no display, and none of this interpreter's paths or GDAL data."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GDAL", "PROJ", "VIRTUAL"))}
    return {**kept, "QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1"}
