"""The look at a scene, and where a plan then restores: the tiles over what was taken for cloud or shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from decr_scene.models.arrays import Float
from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.look.coarse import CoarseReader, Sight
from decr_scene.pipeline.look.detection import Coverage, Places, read_coverage, read_ground, write_look
from decr_scene.pipeline.look.detectors import Lookout, MaskLookout, ModelLookout, ScaledBands, UkisLookout
from decr_scene.pipeline.look.ground import ground_side
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.look.reflectance import fit_reflectance
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.raster.source import FileSource
from decr_scene.pipeline.regions.fields import FileField
from decr_scene.pipeline.regions.masks import DetectedMask, MaskFile
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.restoration.open_restorers import detect
from decr_scene.pipeline.restoration.plan import Planned, chosen_tiles
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.system.forks import refuse_after_fork, threads_begin

if TYPE_CHECKING:
    from torch import Tensor

    from decr_scene.models.networks.detector import DetectorConfig

Ask = Callable[[Float], Float]
"""Averaged images ``(B, C, h, w)`` to the probabilities of a model's detector, ``(B, 2, h, w)``."""

MANY = 0.02
"""Share of the scene that is the dense part of clouds with an inside from which on that is told."""

TONE_UNKNOWN = "hardly any ground is clear, so its tone is not known"


def gated(planned: Planned, mask: Region, veils: bool = False) -> Planned:
    """Restrict a plan to where a mask says.

    With veils, also to where the model changes much.
    """
    plan = replace(planned.plan, mask=mask, veils=veils)
    return replace(planned, plan=plan, chosen=chosen_tiles(plan))


def detect_clouds(
    planned: Planned,
    scene: RasterioScene,
    options: Options,
    places: Places,
    again: bool = False,
    ask: Ask | None = None,
) -> Planned:
    """Look at the scene, if the plan says so, and let what is found choose where it restores.

    Args:
        planned: The plan.
        scene: The scene.
        options: Those that the plan was made of.
        places: Where the rasters are written; workers read them there.
        again: Take those that an interrupted run of the same plan has left, if they are there.
        ask: Has the model's own detector answer where models run; ``None``: here.

    Raises:
        SceneReadError: The scene cannot be read somewhere.
        OutputError: The rasters cannot be written.
    """
    look = planned.look
    if look is None:
        return planned
    coverage = read_coverage(places.cloud) if again else None
    ground = None if coverage is None else read_ground(places.ground)
    plan = planned.plan
    sides = [-(-side // look.factor) for side in scene.shape]
    if coverage is None or ground is None:
        refuse_after_fork()
        threads_begin()
        source = FileSource(scene.path, options.bands)
        lookout = lookout_of(look, planned, scene, source, ask)
        split, _ = ground_side(scene.shape, look.factor)
        reader = CoarseReader(
            scene.shape, source, plan.indexes, plan.radiometry, look.factor, lookout.sight, split
        )
        coverage = write_look(lookout, scene, reader, look.threshold, places)
        ground = read_ground(places.ground)
        assert ground is not None, "it was just written"
    planned = replace(
        planned, plan=replace(plan, ground=ground, fills=look.fills, tones=look.tones), coverage=coverage
    )
    if look.gates:
        field = FileField(str(places.cloud.resolve()), (sides[0], sides[1]))
        planned = gated(planned, look.mask(field, scene.shape), look.veils)
    if coverage.insides > MANY:
        planned = planned.warning(
            f"{coverage.insides:.0%} of the scene is white within what looks like cloud, and becomes smooth "
            "ground: give a mask if it is snow, salt or sand"
        )
    if not ground.known and (plan.spec.name == "fill" or plan.spec.context):
        then = "nothing is changed" if plan.spec.name == "fill" else "the result is a guess at a clear day's"
        planned = planned.warning(f"{TONE_UNKNOWN}: {then}")
    return planned


def lookout_of(
    look: LookPlan, planned: Planned, scene: RasterioScene, source: FileSource, ask: Ask | None = None
) -> Lookout:
    """Choose who looks."""
    if look.kind == "ukis":
        return UkisLookout(fit_reflectance(scene, source, look.bands, look.factor))
    if look.kind == "mask":
        mask = planned.plan.mask
        assert isinstance(mask, MaskFile), "the plan says that there is one"
        return MaskLookout(mask.cloud, planned.plan.indexes)
    if look.lender is not None:
        return open_lent_lookout(look, planned.plan.indexes, planned.plan.radiometry)
    return open_lookout(planned.plan.spec, ask)


def open_lookout(spec: RestorerSpec, ask: Ask | None = None, sight: Sight | None = None) -> Lookout:
    """Open the model's own detector."""
    from decr_scene.models.bundled import find_model
    from decr_scene.models.checkpoints.model_file import read_model_config

    config = read_model_config(find_model(spec.name)).detector
    assert config is not None, "the plan says that there is one"
    return ModelLookout(_Detecting(config, ask or partial(detect, spec)), sight)


def open_lent_lookout(look: LookPlan, indexes: Sequence[int], radiometry: Radiometry) -> Lookout:
    """Open a detector that another model lends, which takes bands and order of its own.

    As `ukis-csmask` does, it looks in this process and on the CPU, whatever the cluster: so the workers of a
    restorer without weights need none, and it makes no difference which device they have.

    Args:
        look: The plan of the look.
        indexes: Bands of the scene that the restorer sees, 0-based.
        radiometry: Their scaling, which for blue, green, red and nir together is what the lender would have.
    """
    assert look.lender is not None, look
    scaling = radiometry.of_bands([indexes.index(band) for band in look.bands])
    return open_lookout(RestorerSpec(look.lender, device="cpu"), sight=ScaledBands(look.bands, scaling))


class _Detecting:
    """A detector that answers where it is asked."""

    def __init__(self, config: DetectorConfig, ask: Ask) -> None:
        self.config = config
        self._ask = ask

    def probability(self, reduced: Tensor) -> Tensor:
        """Return what `CloudDetector.probability` does."""
        import torch

        return torch.from_numpy(self._ask(reduced.numpy()))


def clouds_of(
    planned: Planned, scene: RasterioScene, options: Options, places: Places
) -> tuple[Coverage, DetectedMask]:
    """Measure how cloudy a scene is, and where.

    The rasters are left where they were written.

    Args:
        planned: The plan, of a mask that is ``auto``.
        scene: The scene.
        options: Those that the plan was made of.
        places: Where the rasters are written.

    Raises:
        SceneError: Nothing looks.
    """
    seen = detect_clouds(planned, scene, options, places)
    if seen.coverage is None and options.detector == "none":
        raise SceneError(f"nothing looks at {scene.path}, as --detector none says: take auto")
    if seen.coverage is None:
        raise SceneError(
            f"model {options.model} has no cloud detector to look at {scene.path} with: take one that has, "
            "or a scene with blue, green, red and nir, whose bands --bands names where the file does not"
        )
    assert isinstance(seen.plan.mask, DetectedMask), "the mask is auto"
    return seen.coverage, seen.plan.mask
