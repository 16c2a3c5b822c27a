"""How long something takes, for people."""

from __future__ import annotations


def time_left(seconds: float, done: int, rest: int) -> float | None:
    """Seconds that the rest will take; ``None``: nobody can tell yet.

    Args:
        seconds: What it has taken so far.
        done: How much was done in that time.
        rest: How much is left.
    """
    if rest == 0:
        return 0.0
    return seconds / done * rest if done > 0 else None


def duration(seconds: float) -> str:
    """Seconds for people: ``40 s``, ``12 min``, ``1 h 26 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
