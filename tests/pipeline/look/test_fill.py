"""`fill`: the tone of clear ground in the place of cloud, the baseline that every model is held against."""

import numpy as np
import pytest
import rioxarray
from click.testing import CliRunner
from fault_cases import fire_after
from look_cases import BGRN, bright_is_cloud, land, pixels_of, scene_of
from raster_cases import write

from decr_scene.pipeline import process_scene, restore
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError, ResumeError
from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs
from decr_scene.pipeline.inspection.cloud_mask import write_cloud_mask
from decr_scene.pipeline.look import ukis
from decr_scene.pipeline.look.detection import Places
from decr_scene.pipeline.look.ground import GroundSums
from decr_scene.pipeline.planning.detect_clouds import detect_clouds
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.raster.scene import RasterioScene


@pytest.fixture(autouse=True)
def by_brightness(monkeypatch):
    bright_is_cloud(monkeypatch)


def test_fill_removes_the_cloud_and_leaves_the_rest_to_the_bit(tmp_path):
    image, where = land()
    scene = scene_of(tmp_path / "scene.tif", image)
    report = process_scene(scene, tmp_path / "clean.tif", model="fill")
    clean = pixels_of(tmp_path / "clean.tif")
    ground = image[:, ~where].mean(axis=1)
    np.testing.assert_allclose(clean[:, where].mean(axis=1), ground, rtol=0.12)
    far = np.ones(where.shape, bool)
    far[50:220, 140:360] = False
    np.testing.assert_array_equal(clean[:, far], image[:, far])
    assert report.checks["clear_pixels_identical"]
    assert report.clouds["cloud"] == pytest.approx(where.mean(), rel=0.3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_fill_does_not_depend_on_blocks_and_workers_of_tiles(tmp_path):
    image, _ = land((700, 600), cloud=(slice(200, 420), slice(180, 400)))
    scene = scene_of(tmp_path / "scene.tif", image)
    for name, more in (("a", {}), ("b", {"blocksize": 128, "batch_size": 3, "overlap": 64})):
        process_scene(scene, tmp_path / f"{name}.tif", model="fill", **more)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / "b.tif"))


def test_fill_takes_a_mask_of_the_users_in_the_place_of_a_detector(tmp_path):
    image, where = land((200, 240), cloud=(slice(60, 120), slice(80, 150)))
    scene = write(tmp_path / "scene.tif", image[:1])
    mask = write(tmp_path / "mask.tif", where[None].astype(np.uint8))
    process_scene(scene, tmp_path / "clean.tif", model="fill", mask=str(mask))
    clean = pixels_of(tmp_path / "clean.tif")
    assert clean[0][where].mean() == pytest.approx(image[0][~where].mean(), rel=0.12)
    assert (clean[0, :20] == image[0, :20]).all()


def test_fill_without_anybody_who_looks_is_refused_in_one_line(tmp_path):
    whole = write(tmp_path / "whole.tif", land((64, 64))[0][:3])
    scene = write(tmp_path / "scene.tif", land((64, 64))[0][:2])
    for path, options in ((scene, {}), (scene, {"bands": "red,green"}), (whole, {"detector": "none"})):
        with pytest.raises(OptionError, match="fill needs to know where cloud is"):
            process_scene(path, tmp_path / "clean.tif", model="fill", **options)
    called = CliRunner().invoke(
        main, ["process", str(scene), "--out", str(tmp_path / "c.tif"), "--model", "fill"]
    )
    assert called.exit_code == 2
    assert called.output.count("\n") == 1


@pytest.mark.parametrize(
    ("clear", "valid", "known"), [(101, 10000, True), (99, 10000, False), (99, 9000, True)]
)
def test_the_tone_is_known_where_a_hundredth_of_the_ground_is_clear(clear, valid, known):
    cells = np.arange(10000).reshape(100, 100)
    cloud = (cells >= clear).astype(np.float32)
    answers = np.stack([1 - cloud, cloud, 0 * cloud])
    sums = GroundSums(1, (800, 800), 8, 1)
    sums.add(
        range(100), np.zeros((1, 100, 100), np.float32), (cells < valid)[None].astype(np.float32), answers
    )
    assert sums.ground().known is known


def test_fill_changes_nothing_where_hardly_anything_is_clear(tmp_path):
    """A sliver between clouds is their rim, and would make one flat sheet of the scene."""
    image, where = land((256, 256), cloud=(slice(0, 256), slice(0, 256)))
    where[:2] = False
    scene = write(tmp_path / "scene.tif", image)
    mask = write(tmp_path / "mask.tif", where[None].astype(np.uint8))
    report = process_scene(scene, tmp_path / "clean.tif", model="fill", mask=str(mask))
    np.testing.assert_array_equal(pixels_of(tmp_path / "clean.tif"), image)
    assert any("hardly any ground is clear" in warning for warning in report.warnings)


def test_fill_takes_the_rims_of_many_small_clouds_where_there_is_no_other_ground(tmp_path):
    image, where = land((256, 240), cloud=(slice(0, 0), slice(0, 0)))
    where[8:-8, 8:-8] = (np.indices((240, 224)) % 40 < 16).all(axis=0)
    image[:, where] = 3000
    image[:, :, 200:] = 0
    scene = write(tmp_path / "scene.tif", image, nodata=0)
    mask = write(tmp_path / "mask.tif", where[None].astype(np.uint8))
    report = process_scene(scene, tmp_path / "clean.tif", model="fill", mask=str(mask))
    clean, valid = pixels_of(tmp_path / "clean.tif"), image[0] > 0
    ground = image[:, ~where & valid].mean(axis=1)
    np.testing.assert_allclose(clean[:, where & valid].mean(axis=1), ground, rtol=0.15)
    assert not any("hardly any ground" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("names", "lender"),
    [(("nir", "red", "green", "blue"), "default"), (("red", "green", "blue"), "rgb")],
)
def test_on_fine_pixels_fill_sees_what_a_bundled_model_sees_whatever_the_order_of_bands(
    names, lender, tmp_path, monkeypatch
):
    """`ukis-csmask` is blind there; the model that lends its detector looks at just the same."""
    monkeypatch.setattr(ukis, "probabilities", lambda windows: pytest.fail("out of its depth"))
    image, where = land((300, 420), cloud=(slice(80, 200), slice(160, 300)))
    image = image[[BGRN.index(name) for name in names]]
    scene = scene_of(tmp_path / "scene.tif", image, names, side=0.5)
    report = process_scene(scene, tmp_path / "clean.tif", model="fill")
    clean = pixels_of(tmp_path / "clean.tif")
    inside = np.zeros(where.shape, bool)
    inside[90:190, 170:290] = True
    ground = image[:, ~where].mean(axis=1)
    np.testing.assert_allclose(clean[:, inside].mean(axis=1), ground, rtol=0.12)
    np.testing.assert_array_equal(clean[:, :30], image[:, :30])
    assert report.detector == f"model {lender}"
    assert report.clouds["cloud"] == pytest.approx(where.mean(), rel=0.3)
    assert report.clouds["output"]["left"] < 0.1
    for model in ("fill", lender):
        write_cloud_mask(scene, tmp_path / f"{model}_mask.tif", model=model, device="cpu")
    seen, of_lender = (pixels_of(tmp_path / f"{model}_mask.tif")[0] for model in ("fill", lender))
    assert seen[inside].mean() > 0.9
    np.testing.assert_array_equal(seen, of_lender)


def test_the_order_of_bands_changes_nothing_in_the_fill(tmp_path):
    image, _ = land((300, 420), cloud=(slice(80, 200), slice(160, 300)))
    swir = image[:1] // 2 + 7  # and a band that the detector does not take lies among them
    places, names = [3, 4, 0, 2, 1], ("nir", "swir", "blue", "red", "green")
    mixed = np.concatenate([image, swir])[places]
    process_scene(scene_of(tmp_path / "scene.tif", image, side=0.5), tmp_path / "plain.tif", model="fill")
    process_scene(
        scene_of(tmp_path / "mixed.tif", mixed, names, side=0.5), tmp_path / "order.tif", model="fill"
    )
    plain, order = pixels_of(tmp_path / "plain.tif"), pixels_of(tmp_path / "order.tif")
    assert (plain != image).any()
    np.testing.assert_array_equal(order[[names.index(name) for name in BGRN]], plain)


def test_restore_looks_at_a_fine_array_as_at_a_file(tmp_path):
    names = ("nir", "red", "green", "blue")
    image, _ = land((300, 420), cloud=(slice(80, 200), slice(160, 300)))
    scene = scene_of(tmp_path / "scene.tif", image[::-1], names, side=0.5)
    process_scene(scene, tmp_path / "clean.tif", model="fill")
    array = rioxarray.open_rasterio(scene, chunks={"x": 200, "y": 100})
    lazy = restore(array, model="fill").compute(scheduler="synchronous").values
    np.testing.assert_array_equal(lazy, pixels_of(tmp_path / "clean.tif"))
    assert (lazy != image[::-1]).any()


def test_the_detector_that_is_lent_to_fill_looks_here_and_not_at_workers(tmp_path):
    scene = scene_of(tmp_path / "scene.tif", land()[0], side=0.5)
    options = Options(model="fill")
    with RasterioScene.open(scene) as opened:
        planned = plan_scene(opened, options)
        assert planned.look.lender == "default"
        places = Places.inside(str(tmp_path))
        seen = detect_clouds(planned, opened, options, places, ask=lambda image: pytest.fail("no weights"))
    assert seen.coverage.cloud > 0


def test_an_interrupted_fill_goes_on_with_the_detector_that_it_began_with(tmp_path):
    image, _ = land((300, 420), cloud=(slice(80, 200), slice(160, 300)))
    scene = scene_of(tmp_path / "scene.tif", image, side=0.5)
    same = {"model": "fill", "blocksize": 128}
    process_scene(scene, tmp_path / "whole.tif", **same)
    with fire_after(2), pytest.raises(OSError, match="fire"):
        process_scene(scene, tmp_path / "clean.tif", **same)
    with pytest.raises(ResumeError, match="look"):
        process_scene(scene, tmp_path / "clean.tif", detector="ukis", **same)
    report = process_scene(scene, tmp_path / "clean.tif", **same)
    assert report.tiles["windows_resumed"] >= 1
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "clean.tif").read_bytes()


def test_fill_is_measured_like_a_model(tmp_path):
    image, _ = land((192, 192), cloud=(slice(60, 120), slice(80, 150)))
    clear, _ = land((192, 192), cloud=(slice(0, 0), slice(0, 0)))
    for name, pixels in (("cloudy", image), ("clear", clear)):
        (tmp_path / name).mkdir()
        scene_of(tmp_path / name / "a.tif", np.clip(pixels // 40, 0, 255).astype(np.uint8))
    found = evaluate_pairs("fill", tmp_path).mean()
    assert found["DE/psnr"] > found["cloudy/psnr"] + 5
    assert found["reference/psnr"] == found["DE/psnr"]
