"""What of a plan is known before a pixel is read: restorer, bands, detector, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decr_scene.pipeline.errors import BandError, OptionError
from decr_scene.pipeline.inputs.bands import label, resolve_names, select_bands
from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.planning.detector import keeps_clear_ground, look_of, separates_ground
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import (
    check_tile_side,
    expected_error_of,
    sampling_warnings,
    spec_of,
)
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import Fit, may_be_veiled, white_places
from decr_scene.pipeline.regions.aoi import Aoi
from decr_scene.pipeline.regions.region import Region
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.tiling.grid import TileGrid

if TYPE_CHECKING:
    from decr_scene.models.checkpoints.expected_error import ExpectedError


@dataclass(frozen=True)
class Frame:
    """What of a plan is known before a pixel is read, of a raster as of an array.

    Args:
        spec: The restorer.
        model_sha256: Of the model file.
        bands: Names of the scene's bands.
        indexes: Those that the restorer sees, 0-based, in its order.
        grid: The tiles.
        joint: The tiles that are restored in one call are denoised as one picture.
        look: What is to look at the scene; ``None``: nothing.
        keeps_clear_ground: As `Plan`.
        warnings: What a user should know.
        error: As `Plan`.
        pixel: Side of a pixel, m; ``None``: unknown.
    """

    spec: RestorerSpec
    model_sha256: str | None
    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    grid: TileGrid
    joint: bool
    look: LookPlan | None
    keeps_clear_ground: bool
    warnings: tuple[str, ...]
    error: ExpectedError | None
    pixel: float | None

    @staticmethod
    def of(
        found: Sequence[str],
        shape: tuple[int, int],
        pixel: float | None,
        options: Options,
        elsewhere: bool = False,
    ) -> Frame:
        """Choose restorer, bands and detector, and lay the tiles.

        Args:
            found: Names of the scene's bands, as far as it tells them.
            shape: ``(height, width)`` of the scene, px.
            pixel: Side of a pixel, m; ``None``: unknown.
            options: The options.
            elsewhere: As in `spec_of`.

        Raises:
            DecrSceneError: As `plan_scene`.
        """
        spec, digest = spec_of(options, elsewhere)
        error = expected_error_of(spec) if options.uncertainty else None
        bands, indexes, warnings = choose_bands(found, spec, options)
        grid, joint = TileGrid(shape, overlap=options.overlap), is_joint(spec, options)
        check_tile_side(spec, grid.size)
        look = look_of(spec, options, bands, shape, pixel)
        quiet = keeps_clear_ground(spec, options, look)
        warnings += sampling_warnings(spec, options)
        return Frame(spec, digest, bands, indexes, grid, joint, look, quiet, warnings, error, pixel)

    def fit(self) -> Fit:
        """Return how the scaling is fitted to the pixels, as `scaling_fit`."""
        names = [self.bands[i] for i in self.indexes]
        return scaling_fit(self.spec, self.look, names, self.pixel, self.grid.shape)

    def plan(
        self, radiometry: Radiometry, options: Options, mask: Region | None = None, aoi: Aoi | None = None
    ) -> Plan:
        """Make the plan, with the scaling that the pixels have and the regions that the options name."""
        return Plan(
            self.grid,
            self.indexes,
            radiometry,
            self.spec,
            options.seed,
            mask,
            self.keeps_clear_ground,
            samples=options.samples,
            aoi=aoi,
            joint=self.joint,
            error=self.error,
        )


def scaling_fit(
    spec: RestorerSpec,
    look: LookPlan | None,
    names: Sequence[str],
    pixel: float | None,
    shape: tuple[int, int],
) -> Fit:
    """Choose how the scaling of a raster is fitted to its pixels.

    On coarse pixels cloud is thick and far brighter than the ground, which a map without a curve leaves a few
    of 255 steps. Networks told of the ground around were trained on ground as light as pictures show it; they
    are also trained to lift a veil over all. 8 bits are fitted where what is left of cloud gives way to the
    ground's tone: there they are a satellite's, with dark ground, rather than a picture.

    Args:
        spec: The restorer.
        look: What looks at it; ``None``: nothing.
        names: Of the bands that the restorer sees.
        pixel: Side of a pixel, m; ``None``: unknown.
        shape: ``(height, width)``, px.
    """
    curved = spec.context and look is not None and look.gates and separates_ground(look, pixel)
    veiled = spec.context and may_be_veiled(pixel, shape)
    return Fit(white_places(names), curved, veiled, fits_bytes=curved and look is not None and look.fills)


def is_joint(spec: RestorerSpec, options: Options) -> bool:
    """Return whether tiles are denoised together.

    Raises:
        OptionError: A callable, or a reference alone, cannot be asked to.
    """
    if options.blend == "joint" and options.restorer is not None:
        raise OptionError(
            f"blend joint is of diffusion steps, which the callable {spec.name} does not tell of: "
            "take blend feather, or a model"
        )
    if options.blend == "joint" and spec.alone:
        raise OptionError(
            f"blend joint is of diffusion steps that tiles can share, which model {spec.name} has none of: "
            "take blend feather"
        )
    return options.blend == "joint" and spec.bands is not None


def choose_bands(
    found: Sequence[str], spec: RestorerSpec, options: Options
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Find the names of a scene's bands, 0-based positions of those the restorer takes, and warnings.

    Raises:
        BandError: As `plan_scene`.
    """
    if spec.bands is None:
        try:
            names = resolve_names(found, options.bands)
        except BandError:
            if options.bands is not None:
                raise
            names = ("",) * len(found)
        used = tuple(i for i in range(len(names)) if names[i] != "alpha")
        return names, used or tuple(range(len(names))), ()
    names = resolve_names(found, options.bands)
    indexes = select_bands(names, spec.bands)
    rest = [label(names, i) for i in range(len(names)) if i not in indexes]
    rest = [name for name in rest if name != "alpha"]
    warnings = (f"the model has no use for {', '.join(rest)}: passed through unchanged",) if rest else ()
    return names, indexes, warnings
