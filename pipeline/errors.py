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


class BandError(SceneError):
    """Nobody can tell which band is which, or a band that the model wants is not there."""


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
    """There is a file of this name already, and nobody said ``--overwrite``."""


class DiskSpaceError(OutputError):
    """Not enough free disk for the scratch file and the output."""


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
