"""Clouds and roofs that do not exist, drawn over images that do."""
