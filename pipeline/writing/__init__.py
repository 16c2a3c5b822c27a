"""From finished blocks to one whole file that survives a kill."""
