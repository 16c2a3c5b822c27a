"""Estimate and format durations."""

from __future__ import annotations


def time_left(seconds: float, done: int, rest: int) -> float | None:
    """Estimate the time that the rest will take, s, or ``None`` while it is unknown.

    Args:
        seconds: Time taken so far.
        done: Number of parts done in that time.
        rest: Number of parts left.
    """
    if rest == 0:
        return 0.0
    return seconds / done * rest if done > 0 else None


def duration(seconds: float) -> str:
    """Format seconds: ``40 s``, ``12 min``, ``1 h 26 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
