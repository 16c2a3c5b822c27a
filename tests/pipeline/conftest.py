"""What several test files need as a fixture."""

import multiprocessing
import shutil
from pathlib import Path

import batch_cases
import beside_cases
import pytest
import resume_cases


@pytest.fixture
def folders(tmp_path):
    """Three scenes, and where they go."""
    src, dst = tmp_path / "incoming", tmp_path / "clean"
    for name in ("a", "b", "c"):
        batch_cases.scene(src / f"{name}.tif")
    return src, dst


@pytest.fixture
def scene(tmp_path):
    """Four bands with a corner of nodata, in files that have no scene of their own."""
    return beside_cases.bgrn(tmp_path)


@pytest.fixture
def mask(tmp_path):
    """Cloud over a part of that scene."""
    return beside_cases.cloud_mask(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A scene of many tiles, and what an undisturbed run makes of it: once for all tests of faults."""
    from fault_cases import OPTIONS, SHAPE, Smooth
    from raster_cases import plain

    from decr_scene.pipeline import process_scene

    folder = tmp_path_factory.mktemp("undisturbed")
    long_scene, whole = plain(folder / "scene.tif", SHAPE, 1), folder / "whole.tif"
    process_scene(long_scene, whole, restorer=Smooth(folder), **OPTIONS)
    return long_scene, whole


@pytest.fixture
def long_scene(undisturbed, tmp_path):
    """A copy of that scene, which may be damaged."""
    return Path(shutil.copy(undisturbed[0], tmp_path))


@pytest.fixture
def whole(undisturbed):
    """What an undisturbed run makes of that scene."""
    return undisturbed[1]


@pytest.fixture
def log(tmp_path):
    """Where restorers note which tiles they have seen."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture(scope="session")
def processes():
    """Processes that have everything imported when they start, so that killing them takes no patience."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decr_scene.pipeline.run", "scipy.ndimage"])
    return context


@pytest.fixture
def small(tmp_path):
    """A scene of a few tiles."""
    return resume_cases.little(tmp_path)


@pytest.fixture(scope="session")
def whole_of(tmp_path_factory):
    """The outputs of runs that nothing disturbs, each made once: by the scene and the side of blocks."""

    from functools import cache

    from test_run import smooth

    from decr_scene.pipeline import process_scene

    @cache
    def make(scene_of, blocksize=512):
        folder = tmp_path_factory.mktemp("whole")
        process_scene(scene_of(folder), folder / "whole.tif", restorer=smooth, blocksize=blocksize)
        return folder / "whole.tif"

    return make
