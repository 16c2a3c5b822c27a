"""``--other-date FILE``: the ground of other dates where there is cloud."""

from threading import Event

import numpy as np
import pytest
import rasterio
from look_cases import BGRN, bright_is_cloud, land, scene_of
from model_cases import tiny_model
from places import SAMPLES
from raster_cases import NORTH_UP, draw, write
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform, reproject
from scipy.ndimage import binary_erosion, gaussian_filter

from decr_scene.models.data.tone import fit_tone, regions
from decr_scene.pipeline import Progress, process_scene
from decr_scene.pipeline.errors import OptionError, OtherDateError, RunCancelledError
from decr_scene.pipeline.look.detection import Places
from decr_scene.pipeline.measures.metrics import psnr
from decr_scene.pipeline.planning import fit_dates
from decr_scene.pipeline.planning.detect_clouds import detect_clouds
from decr_scene.pipeline.planning.fit_dates import fit_other_dates
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.provenance import GENERATED, NAMES, OTHER_DATE, classify
from decr_scene.pipeline.tiling.grid import Span

CLOUDY, CLEAR = SAMPLES / "landsat_cloudy.tif", SAMPLES / "landsat_clear.tif"
WHOLE = Span(0, 0, 640, 640)


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def laid_over(*dates, folder="nowhere", **options):
    chosen = {"model": "rice2", "mask": "none", "detector": "none", **options}
    chosen = Options(other_date=[str(date) for date in dates], **chosen)
    places = Places.inside(str(folder))
    with RasterioScene.open(CLOUDY) as opened:
        planned = detect_clouds(plan_scene(opened, chosen), opened, chosen, places)
        return fit_other_dates(planned, opened, chosen, places).plan.other


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
    cloudy, clear = (pixels(path) / np.float32(127.5) - 1 for path in (CLOUDY, CLEAR))
    truth = fit_tone(cloudy, clear).apply(clear)
    other, area = laid_over(CLEAR), regions(cloudy, truth)
    values, shown = other.dates[0].read(WHOLE)
    assert (shown == 1).all()
    assert np.abs((values - cloudy)[:, area.clear]).mean() * 127.5 < 3.5
    *mixed, _ = other.instead_of(truth, cloudy, WHOLE, None)
    assert np.abs((np.stack(mixed) - truth)[:, area.cloud].mean(axis=1)).max() * 127.5 < 2


def test_another_projection_type_and_order_of_bands_is_the_same_ground(tmp_path):
    (there,) = laid_over(of_another_kind(tmp_path / "other.tif")).dates
    assert there.source.indexes == (2, 1, 0)
    values, shown = there.read(WHOLE)
    plain, _ = laid_over(CLEAR).dates[0].read(WHOLE)
    inside = (slice(None), slice(20, -20), slice(20, -20))
    assert (shown[inside[1:]] == 1).all()
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
    guess[:, 100:500, 100:500] -= 0.6
    *mixed, share = other.instead_of(guess, image, WHOLE, None)
    mixed = np.stack(mixed)
    assert (share[130:470, 320:470] > 0.99).all()
    assert not share[:, :300].any()
    values, shown = other.dates[0].read(WHOLE)
    assert not shown[:, :300].any()
    np.testing.assert_array_equal(mixed[:, :, :300], guess[:, :, :300])
    np.testing.assert_array_equal(mixed[:, 520:], image[:, 520:])
    core = (slice(None), slice(130, 470), slice(320, 470))
    assert (shown[:, 312:] == 1).all()
    fine = [part - gaussian_filter(part, (0, 3, 3)) for part in (mixed, values)]
    np.testing.assert_allclose(fine[0][core], fine[1][core], atol=0.02)
    edge = np.abs(mixed - guess)[:, 130:470, 300:315].mean(axis=(0, 1))
    assert edge[0] < edge[-1] / 4


def test_from_a_cloud_to_its_shadow_there_is_no_gap():
    other, image = laid_over(CLEAR), pixels(CLOUDY) / np.float32(127.5) - 1
    guess = image.copy()
    guess[:, 100:300, 100:200] -= 0.6
    guess[:, 100:300, 204:300] += 0.6
    guess[:, 100:300, 340:440] += 0.6
    share = other.instead_of(guess, image, WHOLE, None)[-1]
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
    (told_of,) = report.other_date
    assert told_of["path"] == str(CLEAR)
    assert min(told_of["explained"].values()) > 0.5
    origins = pixels(tmp_path / "with_provenance.tif")[0]
    whole = area.cloud & np.isin(origins, (GENERATED, OTHER_DATE))
    assert whole[area.cloud].mean() > 0.5, "the rest is blended, at the rims of clouds"
    assert (origins[whole] == OTHER_DATE).mean() > 0.9
    assert not (pixels(tmp_path / "alone_provenance.tif") == OTHER_DATE).any()
    inside = binary_erosion(origins == OTHER_DATE, iterations=8)
    taken, _ = laid_over(CLEAR, folder=tmp_path, mask="auto", detector="auto").dates[0].read(WHOLE)
    fine = [image - gaussian_filter(image, (0, 2, 2)) for image in (given, taken)]
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
        (4, {"transform": FAR}, "shows nothing of the scene"),
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


def test_other_ground_is_refused_with_figures(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 640, 640), dtype=np.uint8)
    with rasterio.open(CLEAR) as clear, rasterio.open(tmp_path / "noise.tif", "w", **clear.profile) as other:
        other.write(noise)
    said = r"does not go with the scene: where both are clear, it explains 0\.\d % .* expected 2 % at least"
    with pytest.raises(OtherDateError, match=said):
        laid_over(tmp_path / "noise.tif")
    (taken,) = laid_over(tmp_path / "noise.tif", CLEAR).dates
    assert taken.path == str(CLEAR), "one that does not go with it is left out beside one that does"


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
        model=str(tiny_model(tmp_path / "tiny.safetensors", bands=names, patch=1, adds=-1.0)),
        mask=str(tmp_path / "mask.tif"),
        other_date=str(tmp_path / "date.tif"),
        detector="none",
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


def test_a_border_of_it_that_is_not_declared_is_refused_and_black_water_is_ground(tmp_path):
    def half(name, black):
        date = pixels(CLEAR)
        date[(slice(None), *black)] = 0
        with rasterio.open(CLEAR) as clear, rasterio.open(tmp_path / name, "w", **clear.profile) as dataset:
            dataset.write(date)
        return laid_over(tmp_path / name)

    with pytest.raises(OtherDateError, match=r"is 0 in all bands in a corner, .* gdal_edit -a_nodata 0"):
        half("border.tif", (slice(None), slice(300)))
    _, shown = half("lake.tif", (slice(100, 300), slice(200))).dates[0].read(WHOLE)
    assert (shown == 1).all()


def several(folder, clouds):
    """A scene under a square of cloud, and dates of its ground in colours and with clouds of their own."""
    rng = np.random.default_rng(3)
    ground = gaussian_filter(rng.standard_normal((4, 400, 420)), (0, 3, 3))
    ground = 700 + 900 * ground
    texture = gaussian_filter(rng.standard_normal((4, 400, 420)), (0, 2, 2))
    names = ("blue", "green", "red", "nir")
    paths = []
    for number, name in enumerate(("scene", *(f"date{n}" for n in range(len(clouds))))):
        image = ground.copy() if number == 0 else ground[::-1] * 0.7 + 150 * number
        for rows, cols in [(slice(100, 260), slice(100, 260))] if number == 0 else clouds[number - 1]:
            image[:, rows, cols] = 5000 + 900 * texture[:, rows, cols]
        path = write(folder / f"{name}.tif", np.clip(image, 1, 65535).astype("uint16"))
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = names
        paths.append(path)
    mask = np.zeros((1, 400, 420), np.uint8)
    mask[:, 100:260, 100:260] = 1
    return paths[0], paths[1:], write(folder / "mask.tif", mask), ground


def cleaned(folder, scene, dates, mask, name="clean", **options):
    report = process_scene(
        scene,
        folder / f"{name}.tif",
        model=str(tiny_model(folder / "tiny.safetensors", bands=("blue", "green", "red", "nir"), patch=1)),
        mask=str(mask),
        other_date=dates,
        detector="none",
        **options,
    )
    return pixels(folder / f"{name}.tif").astype(float), report


def test_what_one_date_hides_another_one_shows(tmp_path):
    left, right = (slice(80, 280), slice(80, 160)), (slice(80, 280), slice(200, 280))
    scene, dates, mask, ground = several(tmp_path, ([left], [right]))
    for date, (rows, cols) in zip(dates, (left, right), strict=True):
        values = pixels(date)
        values[:, rows, cols] = 0
        with rasterio.open(date, "r+") as dataset:
            dataset.write(values)
            dataset.nodata = 0
    inside = (slice(None), slice(110, 250), slice(110, 250))
    alone, _ = cleaned(tmp_path, scene, str(dates[0]), mask, "alone")
    both, report = cleaned(tmp_path, scene, dates, mask, "both")
    off = [np.abs(image - ground)[inside].mean() for image in (alone, both)]
    assert off[1] < 60 < off[0]
    assert [entry["path"] for entry in report.other_date] == [str(date) for date in dates]
    origins = pixels(tmp_path / "both_provenance.tif")[0]
    assert (origins[inside[1:]] == OTHER_DATE).mean() > 0.95


def test_bands_of_another_season_are_brought_into_the_scenes_colours(tmp_path):
    scene, (date,), mask, ground = several(tmp_path, ([],))
    clean, report = cleaned(tmp_path, scene, date, mask)
    inside = (slice(None), slice(110, 250), slice(110, 250))
    assert np.abs(clean - ground)[inside].mean() < 30, "its bands are in reverse order, and paler"
    assert min(report.other_date[0]["explained"].values()) > 0.95
    assert report.parameters["other_date"] == str(date)


def test_the_scene_itself_among_its_dates_is_left_out(tmp_path):
    scene, (date,), mask, _ = several(tmp_path, ([],))
    with_it, report = cleaned(tmp_path, scene, [scene, date, date], mask, "one")
    without, _ = cleaned(tmp_path, scene, [date], mask, "two")
    np.testing.assert_array_equal(with_it, without)
    assert len(report.other_date) == 1
    with pytest.raises(OptionError, match="is that scene itself: name another, or none"):
        cleaned(tmp_path, scene, [scene], mask, "three")


def test_a_scene_without_clear_ground_is_refused_in_one_line(tmp_path):
    scene, (date,), _, _ = several(tmp_path, ([],))
    everywhere = write(tmp_path / "all.tif", np.ones((1, 400, 420), np.uint8))
    with pytest.raises(OtherDateError, match="has 0 pixels that are clear where the scene is") as caught:
        cleaned(tmp_path, scene, [date], everywhere)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*clean*"))


def test_clouds_of_another_date_are_looked_for_and_nothing_of_the_look_is_left(tmp_path, monkeypatch):
    bright_is_cloud(monkeypatch)
    cloudy, _ = land()
    other, own = land(cloud=(slice(160, 230), slice(60, 150)))
    scene, date = scene_of(tmp_path / "scene.tif", cloudy), scene_of(tmp_path / "date.tif", other)
    model = str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN))
    places = Places.inside(str(tmp_path))
    with RasterioScene.open(scene) as opened:
        chosen = Options(model=model, other_date=str(date))
        planned = detect_clouds(plan_scene(opened, chosen), opened, chosen, places)
        (laid,) = fit_other_dates(planned, opened, chosen, places).plan.other.dates
    _, shown = laid.read(Span(0, 0, *own.shape))
    assert not shown[own].any()
    assert laid.cloudy == pytest.approx(own.mean(), rel=0.3)
    assert (shown[100:150, 200:300] == 1).all(), "under the cloud of the scene it is clear"
    assert sorted(places.existing) == sorted([*places, *places.of_date(1)])
    places.remove()
    process_scene(scene, tmp_path / "clean.tif", model=model, other_date=str(date))
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name or "cloud" in path.name]


def test_who_looks_at_the_dates_makes_another_run(tmp_path):
    scene, (date,), mask, _ = several(tmp_path, ([],))
    guards = []
    with RasterioScene.open(scene) as opened:
        for detector in ("none", "auto", "model"):
            chosen = Options(mask=str(mask), other_date=str(date), detector=detector)
            guards.append(run_guard(opened, plan_scene(opened, chosen), "deflate", 512))
    assert guards[0] != guards[1]
    assert guards[0] != guards[2]


def test_the_same_picture_under_another_name_is_no_other_date(tmp_path):
    scene, (date,), mask, ground = several(tmp_path, ([],))
    copy = write(tmp_path / "copy.tif", pixels(scene) * 2)
    clean, report = cleaned(tmp_path, scene, [copy, date], mask)
    assert [entry["path"] for entry in report.other_date] == [str(date)]
    assert any("is the scene's own picture" in warning for warning in report.warnings)
    inside = (slice(None), slice(110, 250), slice(110, 250))
    assert np.abs(clean - ground)[inside].mean() < 30


def test_one_date_that_cannot_be_taken_does_not_end_the_run(tmp_path):
    scene, (date,), mask, _ = several(tmp_path, ([],))
    far = write(tmp_path / "far.tif", pixels(date), transform=FAR)
    odd = pixels(date).astype("int16")
    odd[:, 50:150, 300:400] = -9999
    odd = write(tmp_path / "odd.tif", odd)
    _, report = cleaned(tmp_path, scene, [far, odd, date], mask)
    assert [entry["path"] for entry in report.other_date] == [str(date)]
    said = "\n".join(report.warnings)
    assert f"other date {far} shows nothing of the scene" in said
    assert f"other date {odd} has values that cannot be ground" in said
    with pytest.raises(OtherDateError, match=r"odd\.tif has values that cannot be ground .* -a_nodata"):
        cleaned(tmp_path, scene, [odd], mask, "again")


def test_an_interrupted_run_with_dates_is_gone_on_with(tmp_path, monkeypatch):
    bright_is_cloud(monkeypatch)
    scene = scene_of(tmp_path / "scene.tif", land()[0])
    date = scene_of(tmp_path / "date.tif", land(cloud=(slice(160, 230), slice(60, 150)))[0])
    model = str(tiny_model(tmp_path / "tiny.safetensors", bands=BGRN))
    out = tmp_path / "clean.tif"

    def run(**options):
        return process_scene(scene, out, model=model, other_date=str(date), batch_size=1, **options)

    stop = Event()

    class Stopping(Progress):
        def tiles(self, done, total):
            if done:
                stop.set()

    with pytest.raises(RunCancelledError):
        run(cancel=stop, progress=Stopping())
    assert len(list(tmp_path.glob(".clean.tif.cloud.partial-1.tif"))) == 1
    looks = []
    monkeypatch.setattr(fit_dates, "write_look", lambda *a: looks.append(a))
    report = run()
    assert not looks, "what was seen is read again"
    resumed = pixels(out)
    monkeypatch.undo()
    bright_is_cloud(monkeypatch)
    run(overwrite=True, resume=False)
    np.testing.assert_array_equal(pixels(out), resumed)
    assert report.tiles["tiles_resumed"] + report.tiles["kept"] > 0
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
