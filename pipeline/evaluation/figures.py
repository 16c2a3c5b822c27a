"""What the figures of merit say of the answers to a pair, of the whole image and of its parts.

Against the clear image as it is (the usual numbers of papers) and against the clear image in the tone of the
cloudy one, which is what a scene tool can aim at; the latter also by region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Bool, Float
from decr_scene.models.data.pictures import display_bands
from decr_scene.models.data.source import Pair
from decr_scene.models.data.tone import fit_tone, regions
from decr_scene.pipeline.measures import metrics
from decr_scene.pipeline.measures.cloud_classes import SHADOW_DROP, classify_clouds
from decr_scene.pipeline.measures.metrics import Figure
from decr_scene.pipeline.measures.perception import Perception
from decr_scene.pipeline.measures.texture import Texture

Row = dict[str, float]

CORE_SHARE, CLOUD_SHARE, CLEAR_SHARE = 0.15, 0.4, 0.3
"""Shares of an image, by the residual of its pair: dense cloud, all cloud, and, from below, clear ground."""

SHADOW_SHARE = 0.005
"""With less shadow than this, an image tells nothing about it."""


@dataclass(frozen=True)
class Figures:
    """The figures of a protocol.

    Args:
        psnr: dB.
        ssim: Structural similarity.
        lpips: Perceptual distance, if wanted.
    """

    psnr: Figure = metrics.psnr
    ssim: Figure = metrics.ssim
    lpips: Figure | None = None

    @classmethod
    def open(cls, protocol: str, lpips: bool, bands: tuple[str, ...]) -> Figures:
        """Choose those of a protocol.

        The paper's grey image takes red, green, blue in this order.
        """
        distance = metrics.open_lpips(protocol == "paper") if lpips else None
        if protocol != "paper":
            return cls(lpips=distance)
        order = list(display_bands(bands)) if len(bands) == 3 else list(range(len(bands)))
        return cls(
            metrics.paper_psnr, lambda image, truth: metrics.paper_ssim(image[order], truth[order]), distance
        )

    def of(self, image: Float, truth: Float) -> Row:
        """Measure PSNR, SSIM and, if wanted, LPIPS of an image."""
        row = {"psnr": self.psnr(image, truth), "ssim": self.ssim(image, truth)}
        return row if self.lpips is None else {**row, "lpips": self.lpips(image, truth)}


@dataclass(frozen=True)
class PairRegions:
    """Boolean ``(H, W)`` maps of a pair, from its residual in one tone.

    Args:
        core: Dense cloud.
        thin: Thin cloud and cloud edges.
        shadow: Darker than the clear image.
        clear: Clear ground.
    """

    core: Bool
    thin: Bool
    shadow: Bool
    clear: Bool


def split_regions(cloudy: Float, matched: Float) -> PairRegions:
    """Split a pair in one tone into dense cloud, thin cloud, shadow and clear ground."""
    shadow = (matched - cloudy).mean(axis=0) > SHADOW_DROP
    core = regions(cloudy, matched, cloud_share=CORE_SHARE).cloud
    area = regions(cloudy, matched, CLOUD_SHARE, CLEAR_SHARE)
    return PairRegions(core & ~shadow, area.cloud & ~core & ~shadow, shadow, area.clear & ~shadow)


def measure_answers(
    pair: Pair,
    answers: Mapping[str, Float],
    figures: Figures | None = None,
    perception: Perception | None = None,
) -> Row:
    """Measure every answer to one pair, ``who/figure``."""
    figures = figures or Figures()
    matched = matched_truth(pair)
    area, part = regions(pair.cloudy, matched), split_regions(pair.cloudy, matched)
    classes = classify_clouds(pair.cloudy, matched)
    texture, row = Texture(matched, classes), {}
    for who, image in answers.items():
        of_answer = {
            **figures.of(image, pair.clear),
            "psnr_tone": metrics.psnr(image, matched),
            "ssim_tone": metrics.ssim(image, matched),
            "psnr_under_cloud": _psnr_of(image, matched, area.cloud),
            "psnr_clear_ground": _psnr_of(image, pair.cloudy, area.clear),
            "clear_shift_dn": metrics.shift(image, pair.cloudy, area.clear),
            "detail": metrics.detail(image, matched),
            "vif": metrics.vif(image, matched),
            "texture": _ratio(metrics.texture(image), metrics.texture(matched)),
            "psnr_core": _psnr_of(image, matched, part.core),
            "psnr_thin": _psnr_of(image, matched, part.thin),
            "psnr_shadow": _psnr_of(image, matched, part.shadow, SHADOW_SHARE),
            "psnr_clear_truth": _psnr_of(image, matched, part.clear),
            **texture.compare(image),
        }
        row.update({f"{who}/{figure}": value for figure, value in of_answer.items()})
    return row if perception is None else row | perception.compare(pair.cloudy, matched, classes, answers)


def _ratio(one: float, other: float) -> float:
    """Divide, or return NaN where there is nothing to divide by."""
    return one / other if other else float("nan")


def matched_truth(pair: Pair) -> Float:
    """Fit the clear image ``(C, H, W)`` to the tone of the cloudy one, clipped to [-1, 1]."""
    return np.clip(fit_tone(pair.cloudy, pair.clear).apply(pair.clear), -1, 1)


def _psnr_of(image: Float, truth: Float, region: Bool, least: float = 0.0) -> float:
    if not region.any() or region.mean() < least:
        return np.nan
    return metrics.psnr(image[:, region], truth[:, region])
