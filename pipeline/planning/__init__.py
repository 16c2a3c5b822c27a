"""From a scene and the options to a plan: which restorer, which detector, which bands, which tiles."""
