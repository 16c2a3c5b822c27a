import numpy as np
import pytest
import rasterio
from raster_cases import described, draw, plain, with_alpha, with_gcps, write

from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.pipeline.errors import OptionError, OutputError, SceneError
from decr_scene.pipeline.training.simulation import simulate_scene


@pytest.fixture
def scene(tmp_path):
    return described(tmp_path / "scene.tif", ("blue", "green", "red", "nir"), nodata=0)


def pixels(path):
    with rasterio.open(path) as source:
        return source.read()


def test_ground_away_from_cloud_keeps_its_bits_and_the_truth_is_the_scene(scene, tmp_path):
    drawn = simulate_scene(scene, tmp_path / "pairs", coverage=(0.3, 0.4), seed=1)
    clear, cloudy, classes = pixels(drawn.clear), pixels(drawn.cloudy), pixels(drawn.mask)[0]
    np.testing.assert_array_equal(clear, pixels(scene))
    changed = (clear != cloudy).any(axis=0)
    assert 0.05 < drawn.cover < 0.8
    assert changed[classes == 1].all()
    assert not changed.all()
    assert (cloudy != 0).all()
    with rasterio.open(scene) as before, rasterio.open(drawn.cloudy) as after:
        assert (before.crs, before.transform, before.descriptions) == (
            after.crs,
            after.transform,
            after.descriptions,
        )


def test_the_mask_lies_where_the_scene_does(tmp_path):
    drawn = simulate_scene(with_gcps(tmp_path), tmp_path / "pairs", bands="blue,green,red,nir")
    with rasterio.open(drawn.cloudy) as cloudy, rasterio.open(drawn.mask) as mask:
        assert mask.gcps[1] == cloudy.gcps[1] is not None
        assert [vars(point) for point in mask.gcps[0]] == [vars(point) for point in cloudy.gcps[0]]
        assert mask.descriptions == (None,)


def test_an_overview_of_the_mask_has_no_class_that_is_not_there(tmp_path):
    scene = plain(tmp_path / "scene.tif", (1024, 1024), 1)
    mask = simulate_scene(scene, tmp_path / "pairs", coverage=(0.3, 0.4), seed=1).mask
    with rasterio.open(mask) as whole, rasterio.open(mask, overview_level=0) as half:
        blocks = whole.read(1).reshape(512, 2, 512, 2).swapaxes(1, 2).reshape(512, 512, 4)
        assert {0, 1} <= {*np.unique(blocks)}
        assert (half.read(1)[..., None] == blocks).any(axis=2).all()


def test_a_seed_is_a_cloud(scene, tmp_path):
    a, b, c = (simulate_scene(scene, tmp_path / str(n), seed=seed) for n, seed in enumerate((5, 5, 6)))
    np.testing.assert_array_equal(pixels(a.cloudy), pixels(b.cloudy))
    assert not np.array_equal(pixels(a.cloudy), pixels(c.cloudy))


def test_nodata_stays_nodata(tmp_path):
    image = draw((200, 200), 3, "uint16")
    image[:, :50] = 0
    scene = write(tmp_path / "scene.tif", image, nodata=0, photometric="RGB")
    drawn = simulate_scene(scene, tmp_path / "pairs", recipe=CloudRecipe(clear=0, aside=0))
    cloudy, classes = pixels(drawn.cloudy), pixels(drawn.mask)[0]
    assert not cloudy[:, :50].any()
    assert cloudy[:, 50:].all()
    assert not classes[:50].any()
    assert drawn.cover == np.isin(classes[50:], (1, 3)).mean() > 0


def test_values_below_zero_are_refused(tmp_path):
    values = np.full((1, 64, 64), -20, "float32")
    values[:, :2, :10] = 4  # roofs
    decibels = write(tmp_path / "db.tif", values)
    with pytest.raises(SceneError, match="values are negative, as decibels are"):
        simulate_scene(decibels, tmp_path / "out")
    dark = np.zeros((1, 64, 64), "uint16")
    dark[:, 0, :3] = 500
    black = write(tmp_path / "black.tif", dark)
    simulate_scene(black, tmp_path / "out")


def test_clouds_are_as_large_and_as_fine_as_asked_for(tmp_path):
    flat = np.full((1, 300, 300), 2000, np.uint16)
    scene = write(tmp_path / "scene.tif", flat)
    sharpness = []
    for scale, finest in (((10, 20), (0.5, 1)), ((300, 400), (0.5, 1)), ((300, 400), (20, 30))):
        steps = []
        for seed in range(4):
            drawn = simulate_scene(
                scene, tmp_path / f"{scale}{finest}{seed}", seed=seed, bands="red", scale=scale, finest=finest
            )
            cloudy = pixels(drawn.cloudy)[0].astype(float)
            steps.append(np.abs(np.diff(cloudy, axis=1)).mean() / cloudy.std())
        sharpness.append(np.mean(steps))
    assert sharpness[0] > 2 * sharpness[1]
    assert sharpness[1] > 2 * sharpness[2]


@pytest.mark.parametrize("name", ["coverage", "scale", "finest", "thickness"])
def test_a_range_out_of_bounds_is_refused(scene, tmp_path, name):
    with pytest.raises(OptionError, match=name):
        simulate_scene(scene, tmp_path / "pairs", **{name: (0.9, 0.1)})


def test_no_cloud_is_drawn_over_an_alpha_band(tmp_path):
    scene = with_alpha(tmp_path)
    drawn = simulate_scene(scene, tmp_path / "pairs", coverage=(0.6, 0.7))
    clear, cloudy = pixels(scene), pixels(drawn.cloudy)
    np.testing.assert_array_equal(cloudy[3], clear[3])
    assert (cloudy[:3] != clear[:3]).any(axis=0).mean() > 0.2


def test_a_seed_may_be_any_whole_number(scene, tmp_path):
    drawn = simulate_scene(scene, tmp_path / "pairs", seed=-1)
    assert (pixels(drawn.cloudy) != pixels(scene)).any()


def test_a_folder_that_cannot_be_made_is_told(scene, tmp_path):
    with pytest.raises(OutputError, match="cannot be made"):
        simulate_scene(scene, scene / "pairs")
