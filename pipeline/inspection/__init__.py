"""Say what would be done, how long it takes and how cloudy a scene is."""
