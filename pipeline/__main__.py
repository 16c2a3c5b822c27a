"""``python -m decr_scene.pipeline``."""

from decr_scene.pipeline.commands.main import main

if __name__ == "__main__":
    main()
