"""Whole scenes in, whole scenes out: rasters, tiles, blending, and the command line."""
