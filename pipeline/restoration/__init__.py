"""What is done to a scene and to its tiles: options, plan and tasks."""
