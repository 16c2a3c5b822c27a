"""Fit the three numbers of the error that is to be expected of a model's answers."""

from __future__ import annotations

import numpy as np

from decr_scene.models.arrays import Double, Float
from decr_scene.models.checkpoints.expected_error import LEAST, ExpectedError

FIRST = (0.0, -1.0, -1.0)
"""Logarithms of the three numbers that the search begins at."""


def fit_expected_error(error: Float, change: Float, texture: Float) -> ExpectedError:
    """Find the most likely standard deviation of errors that are normally distributed.

    Args:
        error: Errors of pixels, root mean squares of their bands, ``(N,)`` on the [-1, 1] scale.
        change: Of `change_and_texture` there, ``(N,)``.
        texture: The same, ``(N,)``.

    Raises:
        ValueError: There are no errors.
    """
    from scipy.optimize import minimize

    if not error.size or not np.any(error):
        raise ValueError("there is no error to fit")
    logs = np.log(np.maximum(np.stack([change, texture]).astype(np.float64), LEAST))
    squares = np.square(error, dtype=np.float64)

    def surprise(numbers: Double) -> float:
        """Return the mean negative log-likelihood, but for a constant, times two."""
        scale, powers = numbers[0], np.exp(numbers[1:])
        log_variance = 2 * (scale + powers @ logs)
        return float(np.mean(log_variance + squares * np.exp(-log_variance)))

    fit = minimize(surprise, FIRST, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-7})
    scale, change_power, texture_power = (float(value) for value in np.exp(fit.x))
    return ExpectedError(scale, change_power, texture_power)
