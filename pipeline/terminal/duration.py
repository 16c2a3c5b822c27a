"""How long something takes, for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds for people: ``40 s``, ``12 min``, ``1 h 26 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
