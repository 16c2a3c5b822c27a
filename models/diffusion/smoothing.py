"""Smooth images by Gaussians."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from decr_scene.models.kernels import suits, weighed_around


def smoothed(images: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Smooth images with Gaussians, with their border repeated.

    Args:
        images: ``(B, C, H, W)``.
        sigma: Standard deviation for each image, px, ``(B,)``; 0 leaves an image as it is.
        most: Greatest ``sigma``; kernels end at three times that.

    Returns:
        ``(B, C, H, W)``.
    """
    reach = math.ceil(3 * most)
    count, bands, height, width = images.shape
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (places / sigma.clamp(min=1e-3)[:, None]).square())
    kernels = kernels / kernels.sum(1, keepdim=True)
    if suits(images) and images.dtype == torch.float32:
        return weighed_around(images, kernels)
    kernels = kernels.repeat_interleave(bands, 0)[:, None]
    flat = images.contiguous().reshape(1, count * bands, height, width)
    for kernel, pad in (
        (kernels[..., None], (0, 0, reach, reach)),
        (kernels[:, :, None], (reach, reach, 0, 0)),
    ):
        with _as_given(images.device):
            flat = F.conv2d(F.pad(flat, pad, mode="replicate"), kernel, groups=count * bands)
    return flat.reshape(images.shape)


def _as_given(device: torch.device) -> AbstractContextManager[None]:
    """Compute in the type of the images: the difference from a smooth image is small beside either."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
