"""Expect the error of an answer from how much it changes the image and how textured it is.

Where much was changed little was seen, and what varies from pixel to pixel is harder to guess. Three numbers
of a model, fitted on pairs that it has not seen, make that a standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from decr_scene.models.arrays import Float

SIGMA = 8.0
"""Standard deviation, px, of the window that change and texture are measured in."""

FINE = 2.0
"""Standard deviation, px, of the low pass that texture is what is left of."""

TRUNCATE = 3.0
"""Where both windows end, standard deviations."""

REACH = round(TRUNCATE * (SIGMA + FINE))
"""Distance up to which pixels decide on the error expected of one, px."""

LEAST = 1e-4
"""Least change and texture, on the [-1, 1] scale, of which powers are taken."""


@dataclass(frozen=True)
class ExpectedError:
    """The standard deviation ``scale * change ** change_power * texture ** texture_power``.

    Change and texture are root mean squares over bands and surroundings, on the [-1, 1] scale: of the answer
    minus the image, and of the answer minus its low pass.

    Raises:
        ValueError: A number is none that can be.
    """

    scale: float
    change_power: float
    texture_power: float

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if not 0 <= getattr(self, name) < 100:
                raise ValueError(
                    f"{name} of the expected error must be in 0 to 100, got {getattr(self, name)}"
                )

    def deviation(self, cloudy: Float, answer: Float) -> Float:
        """Return the standard deviation of the error, ``(H, W)`` on the [-1, 1] scale.

        Args:
            cloudy: The image, ``(C, H, W)`` in [-1, 1].
            answer: The model's answer, same shape.
        """
        change, texture = (np.maximum(values, LEAST) for values in change_and_texture(cloudy, answer))
        deviation = self.scale * change**self.change_power * texture**self.texture_power
        return np.asarray(deviation, np.float32)


def change_and_texture(cloudy: Float, answer: Float) -> tuple[Float, Float]:
    """Measure both around every pixel, ``(H, W)`` each, of images ``(C, H, W)`` in [-1, 1]."""
    from scipy.ndimage import gaussian_filter

    def around(values: Float) -> Float:
        squares = np.square(values, dtype=np.float64).mean(axis=0)
        return np.sqrt(np.maximum(gaussian_filter(squares, SIGMA, truncate=TRUNCATE), 0))

    fine = answer - gaussian_filter(answer, (0, FINE, FINE), truncate=TRUNCATE)
    return around(answer - cloudy), around(fine)
