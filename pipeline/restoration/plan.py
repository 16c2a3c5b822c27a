"""What is done to a scene, as every worker has it, and what of the scene it is done to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from decr_scene.pipeline.dates.other_dates import OtherDates
from decr_scene.pipeline.defaults import BATCH_SIZE
from decr_scene.pipeline.errors import ClusterError
from decr_scene.pipeline.inputs.identity import FileIdentity
from decr_scene.pipeline.look.detection import Coverage
from decr_scene.pipeline.look.ground import Ground
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.regions import clear_ground
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.regions.masks import MaskFile
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.restoration.restorers import RestorerSpec, on_gpu
from decr_scene.pipeline.system.version import code_here
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, TileGrid
from decr_scene.pipeline.tiling.windows import windows

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.expected_error import ExpectedError

BATCH_SHARE = 50
"""Without a GPU, the batches of all models, one each, are no more than such a part of the tiles: a model has
two of them under way, and a kill may cost both. Tiles that are computed at the same time are in one."""


@dataclass(frozen=True)
class Plan:
    """What is done to a scene; the same for every worker.

    Args:
        grid: The tiles.
        indexes: Bands of the scene that the restorer sees, 0-based, in its order.
        radiometry: The scaling of those bands.
        spec: The restorer.
        seed: Of the noise.
        mask: Where anything may change; ``None``: everywhere.
        keeps_clear_ground: Leave alone what the restorer hardly changes.
        veils: What the restorer changes much is changed though it lies outside the mask; with ``fills``, as
            far as it darkens ground that is not bare. Tiles that have neither are given a first guess, and
            are not sampled.
        samples: Results of each tile, of as many seeds; the first is the output, all tell the uncertainty.
        aoi: The area of interest, which restricts as the mask does; ``None``: everywhere.
        joint: The tiles that are restored in one call are denoised as one picture.
        other: Other dates, taken for the first guess where that sees cloud; ``None``: the guess itself.
        files: What is opened for it, each in the state that is meant.
        fills: Cloud that the first guess leaves where the mask is gives way to the ground's tone.
        tones: The first guess is held to the ground's tone.
        ground: The ground of the scene as a whole; ``None``: there was no look at it.
        error: The error to be expected of the restorer; ``None``: it is not asked for.
    """

    grid: TileGrid
    indexes: tuple[int, ...]
    radiometry: Radiometry
    spec: RestorerSpec
    seed: int = 0
    mask: Region | None = None
    keeps_clear_ground: bool = False
    veils: bool = False
    samples: int = 1
    aoi: Aoi | None = None
    joint: bool = False
    other: OtherDates | None = None
    files: tuple[FileIdentity, ...] = ()
    ground: Ground | None = None
    fills: bool = False
    tones: bool = False
    error: ExpectedError | None = None
    code: str | None = None
    """State of the program on the machine that asks, where other processes work."""

    def check_files(self) -> None:
        """Refuse to go on with other files than the run was started with, or with another program.

        Raises:
            SceneReadError: One is not there, or is another one.
            ClusterError: This process runs other code.
        """
        if self.code is not None and self.code != code_here():
            raise ClusterError(
                f"a worker has joined that runs another decr-scene ({code_here()}) than the run was started "
                f"with ({self.code}): install the same on all machines, then run again"
            )
        for file in self.files:
            file.check()

    @property
    def regions(self) -> tuple[Region, ...]:
        """List the regions that all restrict where anything may change."""
        return tuple(region for region in (self.mask, self.aoi) if region is not None)

    @property
    def tells_uncertainty(self) -> bool:
        """Return whether a standard deviation of every pixel is written."""
        return self.samples > 1 or self.error is not None

    @property
    def weighs_change(self) -> bool:
        """Return whether the size of the change, in its neighbourhood, decides where it is applied."""
        return self.keeps_clear_ground or self.veils

    @property
    def doubts_veils(self) -> bool:
        """Return whether a change outside the mask is applied only as far as it darkens, and not where bare.

        `ukis-csmask` overlooks hardly any real veil on the pixels that it was trained on.
        """
        return self.veils and self.fills

    @property
    def visible(self) -> list[int]:
        """List the numbers of the visible ones among the restorer's bands."""
        return clear_ground.visible_bands(self.spec.bands or (), len(self.indexes))

    @property
    def compares_around(self) -> bool:
        """Return whether the scene around a pixel, or where it is valid, decides what becomes of it."""
        return self.doubts_veils or self.error is not None

    def sight(self, span: Span) -> Span:
        """Grow a window to that of the change that must be known to blend it."""
        return clear_ground.around(span, self.grid.shape) if self.looks_around else span

    @property
    def looks_around(self) -> bool:
        """Return whether the change around a pixel has a say in what becomes of it."""
        return self.weighs_change or self.error is not None


@dataclass(frozen=True)
class Planned:
    """A `Plan` of one scene, the tiles that it restores, and what a user should know of it.

    Args:
        plan: The plan.
        bands: Names of the scene's bands.
        model_sha256: Of the model file.
        chosen: The tiles to restore; ``None``: all.
        warnings: What a user should know.
        look: What is to look at the scene before anything is restored; ``None``: nothing.
        coverage: What it found; ``None``: it has not looked.
    """

    plan: Plan
    bands: tuple[str, ...]
    model_sha256: str | None = None
    chosen: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = field(default=())
    look: LookPlan | None = None
    coverage: Coverage | None = None

    def batches(self, size: int | None, models: int = 1) -> Batches:
        """List the tiles to restore, ``size`` at a time or as many as are denoised together.

        ``None`` is the usual size for so many models on this machine, see `Options`.
        """
        return Batches.of(self.plan.grid, size or self._usual_size(models), self.chosen, self.plan.joint)

    def _usual_size(self, models: int) -> int:
        if on_gpu(self.plan.spec):
            return BATCH_SIZE
        return min(BATCH_SIZE, max(1, self._at_once(models), self.tiles_to_restore // (BATCH_SHARE * models)))

    def _at_once(self, models: int) -> int:
        """Count the tiles that each model samples at the same time here; a cluster's cores are not known."""
        if not self.plan.spec.side_by_side or self.plan.spec.computing is None:
            return 1
        import torch

        return torch.get_num_threads() // models

    def warning(self, *more: str) -> Planned:
        """Add something to know that comes before the rest."""
        return replace(self, warnings=(*more, *self.warnings))

    @property
    def mask_meaning(self) -> str | None:
        """Name the convention by which the user's mask is read, or ``None`` without a mask."""
        mask = self.plan.mask
        return mask.rule.name if isinstance(mask, MaskFile) else None

    @property
    def tiles_to_restore(self) -> int:
        """Count the tiles to restore."""
        return len(self.plan.grid) if self.chosen is None else len(self.chosen)


def chosen_tiles(plan: Plan) -> tuple[int, ...] | None:
    """Choose the tiles over anything that mask and area of interest both let change; ``None``: all.

    Inside the area the result is that of the whole scene: of the tiles that this would restore, those that
    have a say in what changes inside.
    """
    grid, gate = plan.grid, None if plan.veils else plan.mask
    gated = None if gate is None else gate.touched_cells(grid)
    if plan.aoi is None:
        return None if gated is None else tuple(grid.over(gated))
    inside = plan.aoi.touched_cells(grid)
    changing = inside if gated is None else inside & gated
    if not plan.looks_around:
        return tuple(grid.over(changing))
    around = grid.over(grid.around(changing, clear_ground.REACH))
    if gated is None:
        return tuple(around)
    return tuple(sorted(set(around).intersection(grid.over(gated))))


def guessed_together(plan: Plan, batches: Batches) -> Batches:
    """Group the tiles that a first guess is made of: those of all batches, and at an area's border others.

    An area of interest restricts what is restored, not what is seen of it: inside, the result is that of the
    whole scene. So the windows are those of the whole scene, as far as the batches need them.

    Returns:
        The windows; for a restorer that guesses each tile alone, batches.
    """
    numbers = sorted(tile for group in batches.groups for tile in group)
    if plan.aoi is None:
        return windows(plan.grid, plan.spec.halo, tuple(numbers)) if plan.spec.windows else batches
    everywhere = chosen_tiles(replace(plan, aoi=None))
    if plan.spec.windows:
        whole = windows(plan.grid, plan.spec.halo, everywhere)
    else:
        whole = Batches.runs(plan.grid, 1, everywhere)
    needed = [whole.groups[number] for number in sorted(whole.over([plan.grid[n] for n in numbers]))]
    if plan.spec.windows:
        return Batches(plan.grid, tuple(needed))
    return Batches.runs(plan.grid, max(1, batches.largest), tuple(number for (number,) in needed))
