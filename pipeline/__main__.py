"""The program `decr-scene`, also ``python -m decr_scene.pipeline``."""

from decr_scene.models.allocation import share_one_heap
from decr_scene.pipeline.system.signals import ended_by_signals


def main() -> None:
    """Run the command line, which Ctrl-C ends while it is imported, too."""
    share_one_heap()
    with ended_by_signals():
        from decr_scene.pipeline.commands.main import main as program

        program()


if __name__ == "__main__":
    main()
