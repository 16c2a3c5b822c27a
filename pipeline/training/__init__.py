"""Rasters and folders for training; the tensors are in the models' own room of this name."""
