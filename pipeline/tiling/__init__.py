"""Squares over a scene: pure arithmetic."""
