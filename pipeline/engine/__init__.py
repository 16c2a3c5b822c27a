"""How the tasks run: streamed over a cluster, or as one lazy graph."""
