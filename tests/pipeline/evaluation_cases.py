"""Pairs to evaluate on, and the command."""

import numpy as np
from click.testing import CliRunner
from pair_cases import save_png, smooth_ground

from decr_scene.pipeline.commands.main import main


def rice(root):
    """Write three pairs of 64 px, laid out as RICE: ground, a dense cloud, a thin one and a shadow."""
    rng = np.random.default_rng(0)
    for number in range(3):
        ground = smooth_ground(rng, 16, 64, (60, 140))
        cloudy = ground.copy()
        cloudy[:10] = 250
        cloudy[10:25] = ground[10:25] // 2 + 90
        cloudy[50:58] = ground[50:58] // 3
        save_png(root / "label" / f"{number}.png", ground)
        save_png(root / "cloud" / f"{number}.png", cloudy)
    return root


def invoke(*args):
    return CliRunner().invoke(main, ["evaluate", "--quiet", *map(str, args)])


def first_table(result):
    """The figures, without what stands below."""
    return result.stdout.split("\n\n")[0]
