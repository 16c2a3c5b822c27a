"""Figures of merit for images in [-1, 1]: the usual ones, and those of the paper, to compare with its tables.

Images are ``(C, H, W)``; PSNR and SSIM are taken on their 8-bit versions, 0 to 255, by scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from decr_scene.models.arrays import Float
from decr_scene.pipeline.errors import OptionError

UInt8 = NDArray[np.uint8]

BEST_PSNR = 100.0
"""Images without any error count as this many dB, so that a mean over images stays finite."""

VIF_SIDE = 41
"""Least side of an image, px, that visual information fidelity has room for."""

GREY = (0.298912, 0.586611, 0.114478)
"""The paper's weights of red, green and blue. They sum to 1.000001, which is kept for its numbers' sake."""


def psnr(image: Float, truth: Float) -> float:
    """Compute the peak signal to noise ratio of all bands, dB: ``10 log10(255^2 / mean((a - b)^2))``.

    Args:
        image: ``(C, H, W)`` or ``(C, N)`` in [-1, 1], rounded to 8 bits.
        truth: The same.

    Returns:
        At most `BEST_PSNR`, which is also what equal images get.
    """
    return _psnr(to_uint8(image), to_uint8(truth))


def ssim(image: Float, truth: Float) -> float:
    """Compute structural similarity with scikit-image's defaults (7 px uniform window), mean of the bands.

    Args:
        image: ``(C, H, W)`` in [-1, 1], rounded to 8 bits, at least 7 px a side.
        truth: The same.

    Returns:
        1 for equal images.
    """
    return float(structural_similarity(to_uint8(truth), to_uint8(image), data_range=255, channel_axis=0))


def paper_psnr(image: Float, truth: Float) -> float:
    """Compute `psnr` as the published code does, of values truncated to 8 bits instead of rounded."""
    return _psnr(truncate_to_uint8(image), truncate_to_uint8(truth))


def paper_ssim(image: Float, truth: Float) -> float:
    """Compute SSIM as the published code does: truncated to 8 bits, for RGB of ``0.298912 R + ...``.

    Args:
        image: ``(C, H, W)`` in [-1, 1]. Three bands must be in the order red, green, blue.
        truth: The same.

    Returns:
        The figure of the grey image for three bands, else the mean of each band's.
    """
    pairs = zip(_greys(truncate_to_uint8(truth)), _greys(truncate_to_uint8(image)), strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=255) for a, b in pairs]))


Figure = Callable[[Float, Float], float]
"""A figure of an image ``(C, H, W)`` in [-1, 1] and its truth."""


def open_lpips(paper: bool = False) -> Figure:
    """Open LPIPS (AlexNet, v0.1) by torchmetrics.

    Bands other than three are averaged one by one.

    Args:
        paper: Give the network values of 0 to 255, as the published code does, instead of -1 to 1.

    Raises:
        OptionError: torchmetrics, torchvision or AlexNet's weights are not there.
    """
    network = _lpips_network()

    def distance(image: Float, truth: Float) -> float:
        return float(
            np.mean([network(*pair) for pair in zip(_in_threes(image), _in_threes(truth), strict=True)])
        )

    def _in_threes(image: Float) -> Float:
        whole = truncate_to_uint8(image) if paper else to_uint8(image)
        values = whole.astype(np.float32) if paper else whole.astype(np.float32) / np.float32(127.5) - 1
        return values[None] if len(values) == 3 else np.repeat(values[:, None], 3, axis=1)

    return distance


def _lpips_network() -> Callable[[Float, Float], float]:
    """Open the network, as a distance of two images ``(3, H, W)``."""
    import torch

    install = "pip install 'decr-scene[lpips]'"
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network: Any = LearnedPerceptualImagePatchSimilarity(net_type="alex").net
    except ModuleNotFoundError as error:
        raise OptionError(f"LPIPS needs torchmetrics and torchvision: {install} ({error})") from error
    except OSError as error:
        raise OptionError(
            f"LPIPS needs AlexNet's weights, which torchvision could not fetch ({error}): "
            f"put them into {torch.hub.get_dir()}/checkpoints"
        ) from error

    def distance(image: Float, truth: Float) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(image[None]), torch.from_numpy(truth[None])))

    return distance


def detail(image: Float, truth: Float) -> float:
    """Compute the spatial correlation coefficient of two images by torchmetrics, 1 at best, NaN of flat ones.

    Each band is taken through a Laplacian, and correlated in windows of 8 px. Unlike `texture`, detail in the
    wrong place earns nothing.
    """
    from torchmetrics.functional.image import spatial_correlation_coefficient

    if not any(np.ptp(band) for band in (*to_uint8(image), *to_uint8(truth))):
        return float("nan")
    return float(spatial_correlation_coefficient(*_as_batches(image, truth)))


def vif(image: Float, truth: Float) -> float:
    """Compute visual information fidelity (pixel domain), 1 at best, NaN below 41 px a side."""
    from torchmetrics.functional.image import visual_information_fidelity

    if min(image.shape[1:]) < VIF_SIDE:
        return float("nan")
    return float(visual_information_fidelity(*_as_batches(image, truth)))


def _as_batches(*images: Float) -> Iterator[Any]:
    """Convert to tensors ``(1, C, H, W)`` of the 8-bit values, in double precision.

    In single precision variances of what is bright and even are lost, to `vif` up to a quarter of it.
    """
    import torch

    for image in images:
        yield torch.from_numpy(to_uint8(image).astype(np.float64)[None])


def texture(image: Float) -> float:
    """Compute the standard deviation of the difference to the mean of the four neighbours."""
    inner = image[:, 1:-1, 1:-1]
    around = image[:, :-2, 1:-1] + image[:, 2:, 1:-1] + image[:, 1:-1, :-2] + image[:, 1:-1, 2:]
    return float((inner - around / 4).std())


def shift(image: Float, other: Float, region: NDArray[np.bool_]) -> float:
    """Compute the largest difference of a band's mean between two images, in DN of 255.

    Args:
        image: ``(C, H, W)`` in [-1, 1].
        other: The same.
        region: ``(H, W)``, the pixels to look at.
    """
    return float(np.abs((image - other)[:, region].mean(axis=1)).max() * 127.5)


def to_uint8(image: Float) -> UInt8:
    """Round [-1, 1] to 0 to 255."""
    return np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)


def truncate_to_uint8(image: Float) -> UInt8:
    """Cut [-1, 1] off to 0 to 255, in float32 like the published code: the precision decides some pixels."""
    return np.clip((image.astype(np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)


def _psnr(image: UInt8, truth: UInt8) -> float:
    if np.array_equal(image, truth):
        return BEST_PSNR
    return min(BEST_PSNR, float(peak_signal_noise_ratio(truth, image, data_range=255)))


def _greys(image: UInt8) -> list[NDArray[np.float64]]:
    """Make one grey ``(H, W)`` of three bands, else one of each band, as if that were all of RGB."""
    if len(image) == len(GREY):
        return [np.tensordot(GREY, image, axes=1)]
    return [sum(GREY) * band for band in image]
