"""Which tiles are restored for an area of interest, and which are given a first guess."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.restoration.plan import Plan, chosen_tiles, guessed_together
from decr_scene.pipeline.restoration.restorers import RestorerSpec
from decr_scene.pipeline.tiling.batches import Batches
from decr_scene.pipeline.tiling.grid import Span, TileGrid

GRID = TileGrid((1500, 2300))


@dataclass(frozen=True)
class Box:
    """A region that is one rectangle."""

    span: Span

    def soft(self, span):
        weights = np.zeros((span.height, span.width), np.float32)
        weights[(self.span & span).inside(span)] = 1
        return weights

    def touched_cells(self, grid):
        rows, cols = grid.cells
        return np.array([[self._meets(Span(a, c, b - a, d - c)) for c, d in cols] for a, b in rows])

    def _meets(self, span):
        common = self.span & span
        return common.height > 0 and common.width > 0


AREA = Box(Span(400, 700, 150, 90))
CLOUD = Box(Span(390, 300, 300, 900))
WHOLE = Plan(GRID, (0,), Radiometry((0.0,), (1.0,)), RestorerSpec("a model", halo=128), mask=CLOUD)


@pytest.mark.parametrize("plan", [WHOLE, replace(WHOLE, veils=True), replace(WHOLE, mask=None)])
@pytest.mark.parametrize("weighs", [False, True])
def test_inside_an_area_every_tile_is_there_that_the_whole_scene_would_restore(plan, weighs):
    plan = replace(plan, keeps_clear_ground=weighs)
    of_whole, chosen = chosen_tiles(plan), chosen_tiles(replace(plan, aoi=AREA))
    of_whole = set(range(len(GRID))) if of_whole is None else set(of_whole)
    changing = AREA.span & CLOUD.span if plan.mask is not None and not plan.veils else AREA.span
    needed = {tile.number for tile in GRID.touching(plan.sight(changing))} & of_whole
    assert needed <= set(chosen) <= of_whole
    if not plan.weighs_change:
        assert needed == set(chosen)


@pytest.mark.parametrize("windows", [False, True])
def test_first_guesses_inside_an_area_are_those_of_the_whole_scene(windows):
    plan = replace(WHOLE, spec=replace(WHOLE.spec, windows=windows))
    part = replace(plan, aoi=AREA)
    batches = Batches.runs(GRID, 4, chosen_tiles(part))
    found = guessed_together(part, batches)
    whole = guessed_together(plan, Batches.runs(GRID, 4, chosen_tiles(plan)))
    guessed = {tile for group in found.groups for tile in group}
    around = {
        other.number for group in batches.groups for n in group for other in GRID.touching(GRID.span(GRID[n]))
    }
    assert around & {tile for group in whole.groups for tile in group} <= guessed
    if windows:
        assert set(found.groups) <= set(whole.groups)
    else:
        assert guessed <= around
        assert found.largest <= 4
