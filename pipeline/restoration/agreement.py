"""Have the estimates of overlapping tiles agree at a step of sampling, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from decr_scene.models.arrays import Double, Float
from decr_scene.pipeline.restoration.plan import Plan
from decr_scene.pipeline.restoration.tile_results import unpadded
from decr_scene.pipeline.tiling.feather import blend, shares
from decr_scene.pipeline.tiling.grid import Tile

if TYPE_CHECKING:
    from torch import Tensor


class Agreement:
    """Feathers estimates of all the tiles, and gives each its window of that one field again.

    What was padded beyond the scene stays each tile's own.
    """

    def __init__(self, plan: Plan, tiles: Sequence[Tile]) -> None:
        self._grid, self._bands, self._tiles = plan.grid, len(plan.indexes), list(tiles)
        self._spans, self._whole = [plan.grid.span(tile) for tile in tiles], plan.grid.union(tiles)

    def __call__(self, images: Float) -> Float:
        """Return estimates of the same shape, ``(N, C, H, W)``."""
        cut = [unpadded(image, span) for image, span in zip(images, self._spans, strict=True)]
        pieces = list(zip(self._tiles, cut, strict=True))
        field = blend(self._grid, self._whole, pieces, self._bands, share_out=True)
        agreed = images.copy()
        for image, span in zip(agreed, self._spans, strict=True):
            unpadded(image, span)[:] = field[(slice(None), *span.inside(self._whole))]
        return agreed

    def on_device(self, images: Tensor) -> Tensor:
        """Do the same on a GPU, so that no step waits for a copy to the host."""
        import torch

        device, agreed = images.device, images.clone()
        weights = [torch.from_numpy(w).to(device) for w in self._weights]
        height, width = self._whole.height, self._whole.width
        total = torch.zeros((self._bands, height, width), dtype=torch.float64, device=device)
        for image, span, weight in zip(images, self._spans, weights, strict=True):
            rows, cols = span.inside(self._whole)
            total[:, rows, cols] += image[:, : span.height, : span.width] * weight
        for image, span in zip(agreed, self._spans, strict=True):
            rows, cols = span.inside(self._whole)
            image[:, : span.height, : span.width] = total[:, rows, cols].float()
        return agreed

    @cached_property
    def _weights(self) -> list[Double]:
        """Return the weight of each tile, ``(h, w)``, which sum to 1 over those that are there."""
        return shares(self._grid, self._whole, self._tiles)
