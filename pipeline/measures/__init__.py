"""Measures of texture, perceptual distance and uncertainty, on arrays."""
