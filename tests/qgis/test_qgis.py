"""What a GIS user sees: outputs opened, styled and drawn by a real QGIS, and read by Debian's own GDAL.

Needs Debian's ``python3-qgis qgis-providers gdal-bin``; where they are missing the tests are skipped.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from places import SAMPLES
from qgis_cases import INSTALL, PYTHON, environment, missing
from raster_cases import NORTH_UP, described, draw, nodata_collar, rotated, write
from rasterio.enums import Resampling

from decr_scene.pipeline import process_scene

HERE = Path(__file__).parent
BANDS = ("blue", "green", "red", "nir")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"NO QGIS HERE: {missing()}: {INSTALL}"),
]


def look(raster, folder, style=None, pictures=()):
    """What QGIS says of a raster; ``pictures`` are (extent, size) pairs, read back as (h, w, 4) bytes."""
    wanted = [
        {"extent": extent, "size": size, "path": str(folder / f"{Path(raster).stem}_{number}.png")}
        for number, (extent, size) in enumerate(pictures)
    ]
    task = folder / "task.json"
    style = None if style is None else str(style)
    task.write_text(json.dumps({"raster": str(raster), "style": style, "pictures": wanted}))
    command = [PYTHON, str(HERE / "look.py"), str(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.get("errors", []) == []
    return found, [read_png(picture["path"]) for picture in wanted]


def read_png(path):
    with rasterio.open(path) as dataset:
        return np.moveaxis(dataset.read(), 0, -1)


def style_of(path, bands, low, high):
    """A QGIS style: three bands as red, green, blue, each stretched from ``low`` to ``high``."""
    ends = f"<minValue>{low}</minValue><maxValue>{high}</maxValue>"
    stretch = f"{ends}<algorithm>StretchToMinimumMaximum</algorithm>"
    parts = "".join(f"<{c}ContrastEnhancement>{stretch}</{c}ContrastEnhancement>" for c in COLOURS)
    drawn = " ".join(f'{c}Band="{band}"' for c, band in zip(COLOURS, bands, strict=True))
    renderer = (
        f'<rasterrenderer type="multibandcolor" opacity="1" alphaBand="-1" {drawn}>{parts}</rasterrenderer>'
    )
    resampler = '<rasterresampler maxOversampling="2" zoomedInResampler="nearest"/>'
    path.write_text(f'<qgis version="3.22.16"><pipe>{renderer}{resampler}</pipe></qgis>')
    return path


COLOURS = ("red", "green", "blue")


def shifted(tiles, noise):
    """A restorer that brightens everything by 26 of 255."""
    return np.clip(tiles + 0.2, -1, 1)


def centre(path, pixels):
    """Extent of ``pixels`` x ``pixels`` px in the middle of a north-up raster."""
    with rasterio.open(path) as dataset:
        row, col = (side // 2 - pixels // 2 for side in dataset.shape)
        left, top = dataset.transform @ (col, row)
        right, bottom = dataset.transform @ (col + pixels, row + pixels)
    return [left, bottom, right, top]


def square_mask(path, scene, rows, cols):
    with rasterio.open(scene) as dataset:
        mask = np.zeros((1, *dataset.shape), "uint8")
        mask[0, rows, cols] = 1
        return write(path, mask, transform=dataset.transform, crs=dataset.crs)


def with_overviews(path, copy, levels):
    """A copy with overviews as the output has them."""
    shutil.copy(path, copy)
    with rasterio.open(copy, "r+") as dataset:
        dataset.build_overviews(levels, Resampling.average)
    return copy


def overview_levels(path):
    with rasterio.open(path) as dataset:
        return dataset.overviews(1)


@pytest.fixture
def scene(tmp_path):
    """Four described bands of 16 bits, 900 x 1100 px."""
    path = write(tmp_path / "scene.tif", draw((900, 1100), 4, "uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = BANDS
    return path


@pytest.fixture
def part(scene, tmp_path):
    """The scene brightened in a square in the middle, and where anything may have changed."""
    mask = square_mask(tmp_path / "mask.tif", scene, slice(300, 420), slice(400, 560))
    clean = tmp_path / "clean.tif"
    process_scene(scene, clean, restorer=shifted, mask=str(mask), scale=(0, 30000))
    near = np.zeros((900, 1100), bool)
    near[260:460, 360:600] = True
    return clean, near


def test_qgis_sees_the_input_place_bands_and_values(scene, tmp_path):
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    before, _ = look(scene, tmp_path)
    after, _ = look(tmp_path / "clean.tif", tmp_path)
    assert after["valid"]
    assert after["crs"] == "EPSG:32650"
    for name in ("crs", "extent", "size", "bands", "interpretation", "nodata"):
        assert after[name] == before[name], name
    for one, other in zip(before["statistics"], after["statistics"], strict=True):
        assert other == pytest.approx(one, rel=1e-6)
    assert after["pyramids"]
    assert not before["pyramids"]


@pytest.mark.parametrize("make", [nodata_collar, rotated], ids=lambda make: make.__name__)
def test_qgis_draws_the_same_picture_of_an_unchanged_scene(make, tmp_path):
    scene = make(tmp_path)
    process_scene(scene, tmp_path / "clean.tif", model="identity", bands=",".join(BANDS))
    style = style_of(tmp_path / "style.qml", (3, 2, 1), 1000, 11000)
    pictures = [(None, (330, 290))]
    before, one = look(scene, tmp_path, style, pictures)
    after, other = look(tmp_path / "clean.tif", tmp_path, style, pictures)
    assert after["extent"] == before["extent"]
    assert after["nodata"] == before["nodata"]
    np.testing.assert_array_equal(one, other)
    assert np.ptp(one[0][..., :3]) > 50  # a picture, not a void


def test_colours_are_the_inputs_where_nothing_changed(scene, part, tmp_path):
    clean, near = part
    style = style_of(tmp_path / "style.qml", (3, 2, 1), 0, 30000)
    levels = overview_levels(clean)
    reference = with_overviews(scene, tmp_path / "reference.tif", levels)
    full, quarter = (None, (1100, 900)), (None, (275, 225))
    before, one = look(reference, tmp_path, style, (full, quarter))
    after, other = look(clean, tmp_path, style, (full, quarter))
    assert (after["styled"], after["style"]) == (True, before["style"])
    assert after["style"]["bands"] == [3, 2, 1]
    np.testing.assert_array_equal(one[0][~near], other[0][~near])
    changed = (other[0].astype(int) - one[0])[320:400, 420:540, :3]
    assert np.median(changed) == pytest.approx(0.1 * 255, abs=1.5)
    far = ~near.reshape(225, 4, 275, 4).any(axis=(1, 3))
    np.testing.assert_array_equal(one[1][far], other[1][far])
    assert (one[1][~far] != other[1][~far]).any()


def test_bands_with_a_scale_are_drawn_as_those_without(scene, tmp_path):
    pictures = []
    for name in ("without", "with"):
        process_scene(scene, tmp_path / f"{name}.tif", model="identity")
        pictures += look(tmp_path / f"{name}.tif", tmp_path, None, [(None, (200, 200))])[1]
        with rasterio.open(scene, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,) * 4, (-0.1,) * 4
    one, other = (picture[..., :3].astype(int) for picture in pictures)
    assert np.ptp(one) > 200
    assert np.abs(one - other).max() <= 1


def transparent(path, alpha_first=False, top=255, dtype="uint8", **units):
    """Three bands and an alpha band, of which the left half is black and transparent."""
    image = draw((64, 96), 4, dtype)
    image[3] = top
    image[:, :, :48] = 0
    if alpha_first:
        write(path, np.roll(image, 1, axis=0), photometric="MINISBLACK")
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = ("alpha", "one", "two", "three")
    else:
        write(path, image, photometric="RGB", alpha="yes")
    return with_units(path, **units)


def indexed(path, alpha=False, **units):
    """Classes with a colour table, and an alpha band that is 0 in the left half."""
    image = (np.arange(64 * 96) % 200 + 5).astype("uint8").reshape(1, 64, 96)
    if alpha:
        image = np.concatenate([image, np.full_like(image, 255)])
        image[1, :, :48] = 0
    write(path, image, photometric="palette", **({"alpha": "yes"} if alpha else {}))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, 7 * n % 256, 255 - n, 255) for n in range(256)})
    return with_units(path, **units)


def with_units(path, scale=None, offset=0.0):
    if scale is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (scale,) * dataset.count, (offset,) * dataset.count
    return path


def drawn(path, tmp_path):
    """What QGIS draws of the output of a scene, with the style beside it."""
    clean = tmp_path / f"clean_{path.name}"
    process_scene(path, clean, model="identity")
    return look(clean, tmp_path, None, [(None, (96, 64))])[1][0].astype(int)


ODD = [{"scale": 1e-4, "offset": -0.1}, {"alpha_first": True}, {"alpha_first": True, "scale": 1e-4}]


@pytest.mark.parametrize("odd", ODD)
def test_transparent_scenes_with_a_scale_are_drawn_as_those_without(odd, tmp_path):
    one = drawn(transparent(tmp_path / "plain.tif"), tmp_path)
    other = drawn(transparent(tmp_path / "odd.tif", **odd), tmp_path)
    assert np.abs(one - other)[..., :3].max() <= 1
    assert (one[..., 3] == np.repeat([0, 255], 48)).all()
    assert (other[:, 48:, 3] == 255).all()
    assert (other[:, :48, 3] == (255 if "scale" in odd else 0)).all(), "by its scale nothing would be opaque"
    assert np.ptp(other[:, 48:, :3]) > 200


def test_alpha_that_qgis_takes_for_next_to_nothing_hides_no_pixel(tmp_path):
    """As of 16 bits with 10000 for opaque; 65535 it knows."""
    for top in (10_000, 65_535):
        picture = drawn(transparent(tmp_path / f"{top}.tif", top=top, dtype="uint16"), tmp_path)
        assert (picture[:, 48:, 3] == 255).all()
        assert (picture[:, :48, 3] == (0 if top == 65_535 else 255)).all()
        assert np.ptp(picture[:, 48:, :3]) > 200


@pytest.mark.parametrize("odd", [{"scale": 0.1, "offset": 3}, {"alpha": True}, {"alpha": True, "scale": 0.5}])
def test_colour_tables_are_those_of_the_values_that_qgis_has(odd, tmp_path):
    one = drawn(indexed(tmp_path / "plain.tif"), tmp_path)
    other = drawn(indexed(tmp_path / "odd.tif", **odd), tmp_path)
    np.testing.assert_array_equal(one[:, 48:], other[:, 48:])
    assert (one[..., 3] == 255).all()
    assert np.ptp(one[..., :3]) > 180
    if odd == {"alpha": True}:
        assert not other[:, :48, 3].any()


def test_zoomed_out_qgis_draws_from_the_overviews(tmp_path):
    """A chequered scene is grey in its averaged overviews and black or white in its pixels."""
    board = np.indices((1024, 1024)).sum(axis=0) % 2 * 200
    scene = write(tmp_path / "scene.tif", np.stack([board] * 3).astype("uint8"))
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    style = style_of(tmp_path / "style.qml", (1, 2, 3), 0, 255)
    _, (bare,) = look(scene, tmp_path, style, [(None, (256, 256))])
    _, (drawn,) = look(tmp_path / "clean.tif", tmp_path, style, [(None, (256, 256))])
    assert set(np.unique(bare[..., :3])) <= {0, 200}
    assert set(np.unique(drawn[..., :3])) == {100}


def test_no_dark_frame_and_no_seam(tmp_path):
    """A flat scene, brightened, is one colour in QGIS up to its last row and column, at both zooms."""
    scene = write(tmp_path / "scene.tif", np.full((3, 700, 900), 100, "uint8"))
    process_scene(scene, tmp_path / "clean.tif", restorer=shifted, mask="none")
    style = style_of(tmp_path / "style.qml", (1, 2, 3), 0, 255)
    pictures = [(None, (900, 700)), (None, (225, 175))]
    _, drawn = look(tmp_path / "clean.tif", tmp_path, style, pictures)
    for picture in drawn:
        assert np.unique(picture.reshape(-1, 4), axis=0).tolist() == [[126, 126, 126, 255]]


def test_zoomed_in_the_change_has_no_hard_edge(scene, part, tmp_path):
    clean, _ = part
    style = style_of(tmp_path / "style.qml", (3, 2, 1), 0, 30000)
    left, top = NORTH_UP @ (340, 240)
    right, bottom = NORTH_UP @ (620, 480)
    window = ([left, bottom, right, top], (560, 480))
    _, (one,) = look(scene, tmp_path, style, [window])
    _, (other,) = look(clean, tmp_path, style, [window])
    change = (other.astype(float) - one)[::2, ::2, 0]
    steps = max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))
    assert change.max() == pytest.approx(26, abs=2)
    assert steps <= 4  # of 26: a ramp of 20 px rises by 2 a pixel at most, the rest is rounding


# -- the bundled sample and model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The bundled sample scene, cleaned by its bundled model."""
    folder = tmp_path_factory.mktemp("sample")
    scene = shutil.copy(SAMPLES / "landsat_cloudy.tif", folder / "scene.tif")
    process_scene(scene, folder / "clean.tif", model="rice2")
    return Path(scene), folder / "clean.tif"


def test_the_sample_lies_where_it_was(sample, tmp_path):
    before, _ = look(sample[0], tmp_path)
    after, _ = look(sample[1], tmp_path)
    assert (after["crs"], after["extent"]) == (before["crs"], before["extent"])
    assert after["pyramids"]


def test_clear_ground_of_the_sample_keeps_its_colours(sample, tmp_path):
    scene, clean = sample
    style = style_of(tmp_path / "style.qml", (1, 2, 3), 0, 255)
    reference = with_overviews(scene, tmp_path / "reference.tif", overview_levels(clean))
    pictures = [(None, (640, 640)), (None, (160, 160))]
    _, one = look(reference, tmp_path, style, pictures)
    _, other = look(clean, tmp_path, style, pictures)
    with rasterio.open(scene) as before, rasterio.open(clean) as after:
        same = (before.read() == after.read()).all(axis=0)
    assert 0.05 < same.mean() < 0.999
    np.testing.assert_array_equal((one[0] == other[0]).all(axis=-1), same)
    whole = same.reshape(160, 4, 160, 4).all(axis=(1, 3))
    np.testing.assert_array_equal(one[1][whole], other[1][whole])


def test_the_written_styles_apply(sample, tmp_path):
    """The ``.qml`` beside each output: right bands, the same picture of what is unchanged."""
    scene, clean = sample
    style, provenance = clean.with_suffix(".qml"), clean.with_name("clean_provenance.tif")
    assert style.exists()
    before, (one,) = look(scene, tmp_path, style, [(None, (640, 640))])
    after, (other,) = look(clean, tmp_path, None, [(None, (640, 640))])  # QGIS finds it by its name
    assert after["style"] == before["style"]
    assert after["style"]["bands"] == [1, 2, 3]
    with rasterio.open(scene) as first, rasterio.open(clean) as second:
        same = (first.read() == second.read()).all(axis=0)
    np.testing.assert_array_equal(one[same], other[same])
    assert np.ptp(one[..., 0]) > 100
    found, (drawn,) = look(provenance, tmp_path, None, [(None, (640, 640))])
    assert found["crs"] == after["crs"]
    assert found["extent"] == after["extent"]
    assert {text.split(":")[0] for text, _ in found["style"]["legend"]} >= {
        "original",
        "blended",
        "generated",
    }
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) >= 2


# -- another GDAL --------------------------------------------------------------------------------------------


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    return done.stdout


def checksums(path, folder):
    """GDAL's checksum of every band of a copy: `gdalinfo` leaves files beside what it looks at."""
    copy = shutil.copy(path, folder / f"copy_of_{Path(path).name}")
    return re.findall(r"Checksum=(\d+)", run("gdalinfo", "-checksum", copy))


def test_debians_gdal_reads_the_same_pixels(scene, tmp_path):
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    found = checksums(tmp_path / "clean.tif", tmp_path)
    assert len(found) == 4
    assert found == checksums(scene, tmp_path)


def test_debians_gdal_finds_unchanged_regions_equal(scene, part, tmp_path):
    clean, _ = part
    windows = {"left": (0, 0, 350, 900), "top": (0, 0, 1100, 250), "changed": (400, 300, 160, 120)}
    sums = {}
    for name, window in windows.items():
        for path in (scene, clean):
            cut = tmp_path / f"{name}_{path.name}"
            run("gdal_translate", "-q", "-srcwin", *map(str, window), str(path), str(cut))
            sums[name, path] = checksums(cut, tmp_path)
    assert sums["left", scene] == sums["left", clean]
    assert sums["top", scene] == sums["top", clean]
    assert all(a != b for a, b in zip(sums["changed", scene], sums["changed", clean], strict=True))


def test_debians_gdal_tells_the_same_of_input_and_output(tmp_path):
    scene = described(tmp_path / "scene.tif", BANDS, nodata=0)
    process_scene(scene, tmp_path / "clean.tif", model="identity")
    before, after = (json.loads(run("gdalinfo", "-json", str(p))) for p in (scene, tmp_path / "clean.tif"))
    for name in ("size", "geoTransform", "cornerCoordinates"):
        assert after[name] == before[name], name
    assert after["coordinateSystem"]["wkt"] == before["coordinateSystem"]["wkt"]
    for one, other in zip(before["bands"], after["bands"], strict=True):
        for name in ("type", "description", "colorInterpretation", "noDataValue"):
            assert other[name] == one[name], name
