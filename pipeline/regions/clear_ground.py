"""Where the model hardly changes anything, which is clear ground that keeps its bits."""

from __future__ import annotations

import numpy as np

from decr_scene.pipeline.arrays import Float

CLEAR_CHANGE = 2 * 5 / 255
"""A change of 5 of 255 DN is the model's own unsteadiness on clear ground, not cloud."""

CLOUDY_CHANGE = 2 * 15 / 255
"""A change of 15 of 255 DN is cloud or shadow."""


def keep_clear_ground(change: Float) -> Float:
    """Leave alone what the model hardly changes: its own change says where it sees cloud or shadow.

    Args:
        change: ``(C, H, W)`` on the [-1, 1] scale.

    Returns:
        The change, faded out smoothly where its largest band is below `CLOUDY_CHANGE`, and nothing at all
        below `CLEAR_CHANGE`: there every pixel keeps its bits.
    """
    return change * cloudy_share(change)


def cloudy_share(change: Float) -> Float:
    """What `keep_clear_ground` leaves of a change: 0 on clear ground, 1 in cloud, ``(H, W)``."""
    size = np.abs(change).max(axis=0)
    rise = np.clip((size - CLEAR_CHANGE) / (CLOUDY_CHANGE - CLEAR_CHANGE), 0, 1)
    share: Float = rise * rise * (3 - 2 * rise)
    return share
