"""Pairs of images: where they lie, and how they are read, cut, resized and toned."""
