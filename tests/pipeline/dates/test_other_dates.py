"""``--other-date FILE``: another date's ground where there is cloud."""

import numpy as np
import pytest
import rasterio
from model_cases import tiny_model
from places import SAMPLES
from raster_cases import NORTH_UP, draw, write
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform, reproject
from scipy.ndimage import binary_erosion, gaussian_filter

from decr_scene.models.data.tone import fit_tone, regions
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import OptionError, OtherDateError
from decr_scene.pipeline.measures.metrics import psnr
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.other_date import OtherDate
from decr_scene.pipeline.restoration.provenance import GENERATED, NAMES, OTHER_DATE, classify
from decr_scene.pipeline.tiling.grid import Span

CLOUDY, CLEAR = SAMPLES / "landsat_cloudy.tif", SAMPLES / "landsat_clear.tif"
WHOLE = Span(0, 0, 640, 640)


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def laid_over(reference, scene=CLOUDY, model="rice2"):
    with RasterioScene.open(scene) as opened:
        return plan_scene(opened, Options(model=model, mask="none", other_date=str(reference))).plan.other


def of_another_kind(path):
    """The clear date in degrees, with 16 bits, other digital numbers and the bands in another order."""
    with rasterio.open(CLEAR) as clear:
        crs = "EPSG:4326"
        transform, width, height = calculate_default_transform(
            clear.crs, crs, clear.width, clear.height, *clear.bounds
        )
        values = np.zeros((3, height, width), "uint16")
        scaled = clear.read()[::-1].astype("uint16") * 37 + 500
        where = {"src_crs": clear.crs, "src_transform": clear.transform, "dst_crs": crs}
        reproject(scaled, values, dst_transform=transform, init_dest_nodata=True, **where, dst_nodata=0)
    profile = {"driver": "GTiff", "crs": crs, "transform": transform, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **profile, count=3, height=height, width=width) as dataset:
        dataset.write(values)
        dataset.descriptions = ("blue", "green", "red")
    return path


def test_it_is_brought_into_the_tone_of_the_scene():
    values, known = laid_over(CLEAR).read(WHOLE)
    cloudy, clear = (pixels(path) / np.float32(127.5) - 1 for path in (CLOUDY, CLEAR))
    assert known.all()
    truth = fit_tone(cloudy, clear).apply(clear)
    clear_ground = regions(cloudy, truth).clear
    assert np.abs((values - cloudy)[:, clear_ground]).mean() * 127.5 < 3.5
    assert np.abs((values - truth).mean(axis=(1, 2))).max() * 127.5 < 2


def test_another_projection_type_and_order_of_bands_is_the_same_ground(tmp_path):
    there = laid_over(of_another_kind(tmp_path / "other.tif"))
    assert there.indexes == (2, 1, 0)
    values, known = there.read(WHOLE)
    plain, _ = laid_over(CLEAR).read(WHOLE)
    inside = (slice(None), slice(20, -20), slice(20, -20))
    assert known[inside[1:]].all()
    assert np.abs(values - plain)[inside].mean() < 0.03
    shifted = np.abs(values - np.roll(plain, 2, axis=2))[inside].mean()
    assert np.abs(values - plain)[inside].mean() < shifted / 1.5


def test_it_is_taken_where_the_guess_sees_cloud_and_where_it_shows_anything(tmp_path):
    date = np.maximum(pixels(CLEAR), 1)  # 0 is to be nodata
    date[:, :, :300] = 0
    with rasterio.open(CLEAR) as clear, rasterio.open(tmp_path / "half.tif", "w", **clear.profile) as half:
        half.write(date)
        half.nodata = 0
    other = laid_over(tmp_path / "half.tif")
    image = pixels(CLOUDY) / np.float32(127.5) - 1
    guess = image.copy()
    guess[:, 100:500, 100:500] -= 0.4
    *mixed, share = other.instead_of(guess, image, WHOLE)
    mixed = np.stack(mixed)
    assert (share[130:470, 320:470] > 0.99).all()
    assert not share[:, :300].any()
    values, known = other.read(WHOLE)
    assert not known[:, :300].any()
    np.testing.assert_array_equal(mixed[:, :, :300], guess[:, :, :300])
    np.testing.assert_array_equal(mixed[:, 520:], image[:, 520:])
    core = (slice(None), slice(130, 470), slice(320, 470))
    assert known[:, 300:].all()
    np.testing.assert_allclose(mixed[core], values.clip(-1, 1)[core], atol=1e-5)
    edge = np.abs(mixed - guess)[:, 130:470, 300:315].mean(axis=(0, 1))
    assert (edge[1:] >= edge[:-1] - 0.01).all()
    assert edge[0] < edge[-1] / 4


def test_from_a_cloud_to_its_shadow_there_is_no_gap():
    other, image = laid_over(CLEAR), pixels(CLOUDY) / np.float32(127.5) - 1
    guess = image.copy()
    guess[:, 100:300, 100:200] -= 0.4
    guess[:, 100:300, 204:300] += 0.4
    guess[:, 100:300, 340:440] += 0.4
    share = other.instead_of(guess, image, WHOLE)[-1]
    assert (share[120:280, 120:280] > 0.99).all()
    assert (share[:, 312:328] < 0.01).all(), "clear ground of 40 px between two clouds stays"
    assert (share[310:] < 0.01).all()


@pytest.mark.slow
def test_thick_cloud_gives_back_the_ground_of_the_other_date(tmp_path):
    process_scene(CLOUDY, tmp_path / "alone.tif", model="rice2")
    report = process_scene(CLOUDY, tmp_path / "with.tif", model="rice2", other_date=str(CLEAR))
    cloudy, clear, alone, given = (
        pixels(path) / np.float32(127.5) - 1
        for path in (CLOUDY, CLEAR, tmp_path / "alone.tif", tmp_path / "with.tif")
    )
    truth = fit_tone(cloudy, clear).apply(clear)
    area = regions(cloudy, truth)
    gain = psnr(given[:, area.cloud], truth[:, area.cloud]) - psnr(alone[:, area.cloud], truth[:, area.cloud])
    shift = np.abs((given - cloudy)[:, area.clear].mean(axis=1)) * 127.5
    print(
        f"under cloud {gain:+.2f} dB over the network's guess; clear ground moves by {shift.round(2)} of 255"
    )
    assert gain > 2
    assert shift.max() <= 2
    assert report.parameters["other_date"] == str(CLEAR)
    assert min(band["correlation"] for band in report.other_date["bands"].values()) > 0.9
    origins = pixels(tmp_path / "with_provenance.tif")[0]
    whole = area.cloud & np.isin(origins, (GENERATED, OTHER_DATE))
    assert whole[area.cloud].mean() > 0.5, "the rest is blended, at the rims of clouds"
    assert (origins[whole] == OTHER_DATE).mean() > 0.9
    assert not (pixels(tmp_path / "alone_provenance.tif") == OTHER_DATE).any()
    inside = binary_erosion(origins == OTHER_DATE, iterations=8)
    fine = [image - gaussian_filter(image, (0, 2, 2)) for image in (given, clear)]
    alike = [np.corrcoef(ours[inside], theirs[inside])[0, 1] for ours, theirs in zip(*fine, strict=True)]
    assert min(alike) > 0.99, "nothing is painted over ground that was seen"
    told = report.verification["classes"]["other date"]
    assert told == pytest.approx((origins == OTHER_DATE).mean(), abs=0.01)


def test_a_run_without_it_is_another_run():
    with RasterioScene.open(CLOUDY) as scene:
        plans = [plan_scene(scene, Options(model="rice2", other_date=given)) for given in (None, str(CLEAR))]
        guards = [run_guard(scene, planned, "deflate", 512) for planned in plans]
    assert guards[0] != guards[1]


FAR = NORTH_UP @ Affine.translation(10000, 0)


@pytest.mark.parametrize(
    ("count", "profile", "said"),
    [
        (4, {"transform": FAR}, "shows 0 of the scene's pixels"),
        (2, {}, "has the bands .* expected blue, green, red, nir by name, or as many bands as the scene, 4"),
        (4, {"crs": None, "transform": None}, r"is \(100, 120\) px, scene \(300, 260\)"),
    ],
)
def test_what_does_not_go_with_the_scene_is_refused(count, profile, said, tmp_path):
    scene = write(tmp_path / "scene.tif", draw((300, 260), 4, "uint16"))
    with rasterio.open(scene, "r+") as dataset:
        dataset.descriptions = ("blue", "green", "red", "nir")
    other = write(tmp_path / "other.tif", draw((100, 120), count, "uint16", seed=1), **profile)
    with pytest.raises(OtherDateError, match=said) as caught:
        process_scene(scene, tmp_path / "out.tif", mask="none", other_date=str(other))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_other_ground_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 640, 640), dtype=np.uint8)
    with rasterio.open(CLEAR) as clear, rasterio.open(tmp_path / "noise.tif", "w", **clear.profile) as other:
        other.write(noise)
    with pytest.raises(OtherDateError, match="is nowhere like the scene, expected the same ground"):
        laid_over(tmp_path / "noise.tif")


def fitted(folder, ours, theirs, windows=1):
    """A date fitted to a scene of ``(2, h, w)`` in [-1, 1], both; that of the date as digital numbers."""
    height, width = ours.shape[1:]
    scene = write(folder / "date.tif", np.round(theirs * 1000 + 12000).astype("uint16"))
    with RasterioScene.open(scene) as opened:
        looked_at = [(Span(0, 0, height, width), ours, np.ones((height, width), bool))] * windows
        return OtherDate.fit(str(scene), opened, ("red", "nir"), (0, 1), looked_at)


def two_dates(correlation):
    """Fields of two dates that correlate so much in the first band, and in full in the other."""
    rngs = [np.random.default_rng(seed) for seed in (2, 3)]
    old, new = (gaussian_filter(rng.standard_normal((2, 192, 192)), (0, 9, 9)) for rng in rngs)
    old, new = 0.2 * old / old.std(), 0.2 * new / new.std()
    ours = old.copy()
    ours[0] = correlation * old[0] + np.sqrt(1 - correlation**2) * new[0]
    return ours.astype(np.float32), old.astype(np.float32)


def test_large_digital_numbers_and_many_pixels_are_fitted_as_exactly(tmp_path):
    ours, theirs = two_dates(0.97)
    other = fitted(tmp_path, np.float32(0.8) * ours + np.float32(0.05), theirs, windows=6)
    np.testing.assert_allclose(np.array(other.gain) * 1000, 0.8, rtol=0.05)
    assert min(other.fitness.correlation) > 0.95
    assert other.warning(("red", "nir")) is None


def test_a_date_that_hardly_goes_with_the_scene_is_told_with_figures(tmp_path):
    other = fitted(tmp_path, *two_dates(0.3))
    said = other.warning(("red", "nir"))
    assert "hardly goes with the scene: where both are clear, its red explains" in said
    assert f"correlation {other.fitness.correlation[0]:.2f}" in said
    assert other.fitness.correlation[0] < 0.7 < other.fitness.correlation[1]
    assert other.fitness.gain[0] < 0.7 < other.fitness.gain[1]


@pytest.mark.parametrize("correlation", [0.1, -0.3])
def test_a_date_that_does_not_go_with_the_scene_is_refused_with_figures(correlation, tmp_path):
    said = r"does not go with the scene: where both are clear, its red explains \d % .* expected 10 %"
    with pytest.raises(OtherDateError, match=said):
        fitted(tmp_path, *two_dates(correlation))


def test_ground_of_the_other_date_has_a_class_of_its_own():
    before = np.zeros((2, 1, 5), np.uint8)
    after = before.copy()
    after[:, :, 1:] = 9
    share, other = np.array([[1, 1, 1, 0.5, 1]]), np.array([[1, 1, 0.5, 1, 0.4]])
    classes = classify(before, after, np.ones((2, 1, 5), bool), share, other)
    assert [NAMES[number] for number in classes[0, 0]] == [
        *("original", "other date", "other date", "blended", "generated")
    ]


def test_a_run_says_where_the_ground_is_from(tmp_path):
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(400, 900, (4, 12, 14)), np.ones((8, 8))).astype("uint16")
    cloudy = ground.copy()
    cloudy[:, 20:60, 20:60] = 3000
    date = ground.copy()
    date[:, :, 40:] = 0  # which is to be nodata
    names = ("blue", "green", "red", "nir")
    for name, image in (("cloudy", cloudy), ("date", date)):
        with rasterio.open(write(tmp_path / f"{name}.tif", image, nodata=0), "r+") as dataset:
            dataset.descriptions = names
    mask = np.zeros((1, 96, 112), np.uint8)
    mask[:, 20:60, 20:60] = 1
    write(tmp_path / "mask.tif", mask)
    report = process_scene(
        tmp_path / "cloudy.tif",
        tmp_path / "clean.tif",
        model=str(tiny_model(tmp_path / "tiny.safetensors", bands=names, patch=1)),
        mask=str(tmp_path / "mask.tif"),
        other_date=str(tmp_path / "date.tif"),
        samples=2,
    )
    origins = pixels(tmp_path / "clean_provenance.tif")[0]
    assert (origins[25:55, 22:32] == OTHER_DATE).all()
    assert (origins[25:55, 45:58] == GENERATED).all()
    assert all(report.checks.values())


def test_it_needs_a_model_and_a_file(tmp_path):
    scene = write(tmp_path / "scene.tif", draw((300, 260), 4, "uint16"))
    with pytest.raises(OptionError, match="which identity has no use for"):
        process_scene(scene, tmp_path / "out.tif", model="identity", other_date=str(scene))
    with pytest.raises(FileNotFoundError, match="no such file"):
        process_scene(CLOUDY, tmp_path / "out.tif", model="rice2", other_date=str(tmp_path / "none.tif"))


def test_of_dates_that_are_alike_the_fit_is_the_identity(tmp_path):
    image = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 60, 60)).astype(np.float32)
    scene = write(tmp_path / "scene.tif", np.round(image * 1000 + 2000).astype("uint16"))
    with RasterioScene.open(scene) as opened:
        windows = [(Span(0, 0, 60, 60), image, np.ones((60, 60), bool))]
        other = OtherDate.fit(str(scene), opened, ("", ""), (0, 1), windows)
    np.testing.assert_allclose(other.gain, 1e-3, rtol=0.01)
    np.testing.assert_allclose(other.offset, -2, atol=0.01)


def test_the_tone_is_found_where_most_of_the_scene_is_under_cloud(tmp_path):
    rng = np.random.default_rng(1)
    ground = rng.uniform(-0.9, -0.2, (2, 320, 320)).astype(np.float32)
    cloudy = np.float32(0.6) * ground + np.float32(0.1)
    cloudy[:, 64:] = 0.9 + 0.05 * rng.standard_normal((2, 256, 320))
    scene = write(tmp_path / "date.tif", np.round(ground * 1000 + 2000).astype("uint16"))
    with RasterioScene.open(scene) as opened:
        windows = [(Span(0, 0, 320, 320), cloudy, np.ones((320, 320), bool))]
        other = OtherDate.fit(str(scene), opened, ("", ""), (0, 1), windows)
    np.testing.assert_allclose(other.gain, 0.6e-3, rtol=0.01)
    np.testing.assert_allclose(other.offset, 0.1 - 1.2, atol=0.01)


def test_a_border_of_it_that_is_not_declared_is_refused_and_black_water_is_ground(tmp_path):
    def half(name, black):
        date = pixels(CLEAR)
        date[(slice(None), *black)] = 0
        with rasterio.open(CLEAR) as clear, rasterio.open(tmp_path / name, "w", **clear.profile) as dataset:
            dataset.write(date)
        return laid_over(tmp_path / name)

    with pytest.raises(OtherDateError, match=r"is 0 in all bands in a corner, .* gdal_edit -a_nodata 0"):
        half("border.tif", (slice(None), slice(300)))
    _, known = half("lake.tif", (slice(100, 300), slice(200))).read(WHOLE)
    assert known.all()
