"""What is seen of a scene as a whole before it is tiled."""
