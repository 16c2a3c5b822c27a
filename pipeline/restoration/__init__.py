"""What is done to a scene and to its tiles: the plan as every worker has it, and the tasks."""
