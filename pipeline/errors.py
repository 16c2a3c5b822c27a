"""What can be wrong with a scene, an output, an option or a run: one page, under the one base class.

Every message is one line: what was found, what was expected, what to do.
"""

from decr_scene.models.errors import DecrSceneError


class OptionError(DecrSceneError, ValueError):
    """An option out of its range, or two that do not go together."""


class SceneError(DecrSceneError, ValueError):
    """A raster that opens but cannot be processed: no bands, complex numbers, an unsupported dtype."""


class SceneReadError(DecrSceneError, OSError):
    """A scene that cannot be opened, or a window of it that cannot be read."""


class SceneNotFoundError(SceneReadError, FileNotFoundError):
    """No file of this name."""


class DamagedCopyError(SceneReadError):
    """The copy of a scene from a web address cannot be read; it is not kept."""


class BandError(SceneError):
    """The bands cannot be named, or one of the model's is missing."""


class MaskError(DecrSceneError, ValueError):
    """A cloud mask or an area of interest that does not go with the scene."""


class OtherDateError(DecrSceneError, ValueError):
    """A raster of another date that does not go with the scene."""


class PairError(DecrSceneError, ValueError):
    """A panchromatic and a multispectral raster that do not go together, or a product folder without them."""


class RestorerError(DecrSceneError, RuntimeError):
    """A restorer that gave back something else than images of the shape it was given."""


class OutputError(DecrSceneError, OSError):
    """The output cannot be written: name, folder, disk, or blocks that never came."""


class OutputExistsError(OutputError, FileExistsError):
    """There is a file of this name already, without ``--overwrite``."""


class DiskSpaceError(OutputError):
    """Not enough free disk for the scratch file and the output."""


class MemorySpaceError(DecrSceneError, MemoryError):
    """Not enough free memory for what a run of this scene holds at a time."""


class ResumeError(DecrSceneError, RuntimeError):
    """What an interrupted run left behind belongs to another input, model or set of parameters."""


class ClusterError(DecrSceneError, ConnectionError):
    """No Dask cluster at the address, or none of its workers may hold a model."""


class LockedError(OutputError, BlockingIOError):
    """Another batch writes to the same folder."""


class ForkError(DecrSceneError, RuntimeError):
    """A run in a process that was forked from one that had done a run."""


class RunCancelledError(DecrSceneError, RuntimeError):
    """The caller has cancelled the run."""


def in_one_line(error: Exception) -> str:
    """Describe an error in one line.

    One of the system, the memory or GDAL is no fault of the program.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, DriverRegistrationError, RasterioError

    text = " ".join(str(error.__cause__ or error).split())
    if isinstance(error, DecrSceneError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"memory does not suffice ({text or 'nothing more is known'}): take a smaller scene or window"
    if "proj.db" in text or isinstance(error, DriverRegistrationError):
        return (
            f"GDAL is not what it should be here ({text}): unset variables such as PROJ_LIB, PROJ_DATA, "
            "GDAL_SKIP and GDAL_DRIVER_PATH, which may be of another GDAL"
        )
    if isinstance(error, (RasterioError, CPLE_BaseError, CRSError)):
        return f"GDAL cannot go on ({text}): check the inputs with gdalinfo"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        if isinstance(error, PermissionError):
            return f"{place}{error.strerror}: change its permissions or those of its folder, or take another"
        return f"{place}{error.strerror}: check the path, the disk and the limits (ulimit -a)"
    return f"unexpected {type(error).__name__}: {text}"
