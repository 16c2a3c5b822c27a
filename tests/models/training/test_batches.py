"""Batches of crops: the same whoever draws them, and what becomes of processes that do."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import psutil
import pytest
from pair_cases import read_png
from places import TESTS

from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.loading import load_source
from decr_scene.models.data.source import batches
from decr_scene.models.errors import TrainingError


def test_batches_are_a_function_of_seed_and_step(root):
    source = load_source(DataConfig("clear", "cloudy", simulate=0.5), root, read_png)
    spectrum = ("red", "green", "blue")
    first = [b for b, _ in zip(batches([source], 3, 32, 4, spectrum), range(4), strict=False)]
    later = [b for b, _ in zip(batches([source], 3, 32, 4, spectrum, start=2), range(2), strict=False)]
    for one, other in zip(first[2:], later, strict=True):
        np.testing.assert_array_equal(one.cloudy, other.cloudy)
        np.testing.assert_array_equal(one.clear, other.clear)
    assert not np.array_equal(first[0].cloudy, first[1].cloudy)


@pytest.mark.slow
def test_processes_draw_the_very_same_batches(root):
    source = load_source(DataConfig("clear", "cloudy", simulate=0.5), root, read_png)
    arguments = ([source], 3, 32, 2, ("red", "green", "blue"), 4)
    with closing(batches(*arguments)) as own, closing(batches(*arguments, loaders=2)) as others:
        for _ in range(6):
            one, other = next(own), next(others)
            np.testing.assert_array_equal(one.cloudy, other.cloudy)
            np.testing.assert_array_equal(one.clear, other.clear)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 2])
def test_a_process_that_draws_crops_and_dies_is_told_in_one_line(seconds, root):
    source = load_source(DataConfig("clear", "cloudy", simulate=0.5), root, read_png)
    with closing(batches([source], 3, 32, 2, ("red", "green", "blue"), loaders=1)) as drawn:
        next(drawn)
        time.sleep(seconds)
        for loader in multiprocessing.active_children():
            loader.kill()
        with pytest.raises(TrainingError, match=r"was ended, .* the same call goes on"):
            list(itertools.islice(drawn, 9))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
def test_no_process_that_draws_crops_outlives_a_killed_training(root):
    script = (
        "import multiprocessing, os, signal, sys\n"
        f"sys.path[:0] = {[str(TESTS), str(TESTS / 'models')]}\n"
        "from pathlib import Path\n"
        "from pair_cases import read_png\n"
        "from decr_scene.models.data.config import DataConfig\n"
        "from decr_scene.models.data.loading import load_source\n"
        "from decr_scene.models.data.source import batches\n"
        "if __name__ == '__main__':\n"
        "    config = DataConfig('clear', 'cloudy', simulate=0.5)\n"
        f"    source = load_source(config, Path({str(root)!r}), read_png)\n"
        "    drawn = batches([source], 3, 32, 2, ('red', 'green', 'blue'), loaders=1)\n"
        "    next(drawn)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=120)
    loader = psutil.Process(int(done.stdout)) if psutil.pid_exists(int(done.stdout)) else None
    if loader is not None:
        loader.wait(20)
