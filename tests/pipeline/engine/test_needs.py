"""What a run holds in memory is known before it begins."""

import pytest
from raster_cases import plain

from decr_scene.pipeline import process_scene
from decr_scene.pipeline.engine import needs
from decr_scene.pipeline.engine.under_way import CHUNK_COLS, WINDOWS_UNDER_WAY
from decr_scene.pipeline.errors import MemorySpaceError, OptionError
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene


@pytest.fixture
def scene(tmp_path):
    return plain(tmp_path / "scene.tif", (700, 600), 2)


def test_it_grows_with_the_width_and_not_with_the_height(tmp_path):
    found = []
    for shape in ((6400, 600), (9600, 600), (6400, 1200)):
        path = plain(tmp_path / f"{shape}.tif", shape, 1, "uint8")
        with RasterioScene.open(path) as opened:
            planned = plan_scene(opened, Options(model="identity"))
            found.append(needs.bytes_under_way(opened, planned, 8, 512))
    assert found[0] == found[1]
    assert 1.1 < found[2] / found[0] < 2.1


def test_of_the_windows_of_a_wide_scene_only_some_are_there_at_a_time(tmp_path):
    """Twice as wide, it holds twice the tiles, but no more windows."""
    window, tile = 512 * CHUNK_COLS * (2 * 3 * 2 + 1), 3 * 256**2 * 4
    for width, windows in ((4096, 4), (8192, WINDOWS_UNDER_WAY), (16384, WINDOWS_UNDER_WAY)):
        with RasterioScene.open(plain(tmp_path / f"{width}.tif", (64, width), 3)) as opened:
            planned = plan_scene(opened, Options(model="identity"))
            held = needs.bytes_under_way(opened, planned, 8, 512)
        assert held == windows * window + len(planned.plan.grid) * tile


def never(tiles, noise):
    raise AssertionError("refused before any work")


def test_a_run_without_the_memory_is_refused_before_any_tile(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda: 1_000_000)
    with pytest.raises(MemorySpaceError, match=r"600 px wide: 1\.00 MB free, .* take a smaller --batch-size"):
        process_scene(scene, tmp_path / "clean.tif", restorer=never)
    assert not (tmp_path / "clean.tif").exists()


def test_a_run_that_needs_more_than_its_limit_is_refused_before_any_tile(scene, tmp_path):
    with pytest.raises(MemorySpaceError, match=r"600 px wide needs .* limited to 2\.00 MB: raise"):
        process_scene(scene, tmp_path / "clean.tif", restorer=never, memory_limit="2MB")
    assert not (tmp_path / "clean.tif").exists()
    assert process_scene(scene, tmp_path / "clean.tif", model="identity", memory_limit="2GB").checks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory_limit": "much"}, "must be a size such as 4GB or 800MiB, got much"),
        ({"memory_limit": 0}, "must be a size"),
        (
            {"memory_limit": "4GB", "scheduler": "tcp://host:8786"},
            "the cluster at tcp://host:8786 has limits",
        ),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(options, said, scene, tmp_path):
    with pytest.raises(OptionError, match=said):
        process_scene(scene, tmp_path / "clean.tif", model="identity", **options)


def test_inspect_says_that_a_run_would_be_refused(scene, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda: 1_000_000)
    found = inspect_scene(scene, model="identity")
    assert any("not enough memory" in warning for warning in found["warnings"])


def test_what_is_free_is_some_of_what_the_machine_has():
    assert 0 < needs.free_memory() < 2**46


def test_several_samples_of_a_tile_take_twice_the_room(scene):
    with RasterioScene.open(scene) as opened:
        one, several = (
            needs.bytes_under_way(opened, plan_scene(opened, Options(model="identity", samples=n)), 8, 512)
            for n in (1, 3)
        )
        tiles = len(plan_scene(opened, Options(model="identity")).plan.grid)
    assert several - one == tiles * 2 * 256**2 * 4
