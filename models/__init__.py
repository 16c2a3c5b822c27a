"""Cloud removal by diffusion enhancement: networks, schedule, sampling, weights. Tensors only."""

from typing import TYPE_CHECKING

from decr_scene.models.exports import exporter

if TYPE_CHECKING:
    from decr_scene.models.model import load_model, load_published

__all__ = ["load_model", "load_published"]

__getattr__ = exporter(__name__, {"load_model": "model", "load_published": "model"})
