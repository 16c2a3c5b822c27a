"""Weights to and from disk, ours and the published ones."""
