"""A panchromatic and a multispectral raster as one scene: sharper, of the same colours, in PAN's place."""

from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from pansharpen_cases import NAMES, SIDE, WEIGHTS, ground, pair
from raster_cases import NORTH_UP, UTM, draw, plain, rational, write
from rasterio.enums import Resampling
from rasterio.transform import Affine
from test_resume import failing_after
from test_run import pixels_of, smooth
from web_cases import serving_apart

from decr_scene.pipeline import process_directory, process_scene
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.errors import OptionError, OutputError, PairError, ResumeError, SceneNotFoundError
from decr_scene.pipeline.files import vrt_path
from decr_scene.pipeline.raster.scene import RasterioScene


def sharpen(colours, sharp, **options):
    out = colours.parent / "out.tif"
    report = process_scene(colours, out, model="identity", pan=str(sharp), **options)
    assert all(report.checks.values())
    assert not vrt_path(out).exists()
    return out, report


def upsampled(path, shape):
    with rasterio.open(path) as dataset:
        return dataset.read(out_shape=(dataset.count, *shape), resampling=Resampling.cubic)


def error_of(image, truth):
    return np.sqrt(np.mean((image.astype(float) - truth) ** 2))


def detail_shared(image, truth):
    """Correlation of the finest differences."""
    one, other = (np.diff(np.asarray(v, float), axis=-1)[..., 8:-8, 8:-8].ravel() for v in (image, truth))
    return np.corrcoef(one, other)[0, 1]


@pytest.mark.parametrize("name", ["file://{}", "file://localhost{}", "/vsizip/{}.zip/pan.tif"])
def test_a_name_of_gdal_or_an_address_of_a_file_is_a_pan(name, tmp_path):
    colours, sharp = pair(tmp_path, ground())
    with ZipFile(f"{sharp}.zip", "w") as archive:
        archive.write(sharp, "pan.tif")
    expected = pixels_of(sharpen(colours, sharp)[0])
    out, report = sharpen(colours, name.format(sharp), overwrite=True)
    np.testing.assert_array_equal(pixels_of(out), expected)
    assert report.product["pan"]["bytes"]


def test_both_of_a_pair_may_be_names_of_gdal_and_on_the_web(tmp_path):
    colours, sharp = pair(tmp_path, ground(side=120))
    expected = pixels_of(sharpen(colours, sharp)[0])
    with serving_apart(tmp_path / "web") as address:
        for path in (colours, sharp):
            path.rename(tmp_path / "web" / path.name)
        for prefix in (f"/vsicurl/{address}", address):
            report = process_scene(
                f"{prefix}/mss.tif",
                tmp_path / "o.tif",
                model="identity",
                pan=f"{prefix}/pan.tif",
                overwrite=True,
            )
            assert all(report.checks.values())
            np.testing.assert_array_equal(pixels_of(tmp_path / "o.tif"), expected)


# -- what comes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("ratio", [2, 4])
def test_detail_rises_and_colours_stay(ratio, dtype, tmp_path):
    truth = ground(dtype=dtype)
    colours, sharp = pair(tmp_path, truth, ratio=ratio, dtype=dtype)
    out, _ = sharpen(colours, sharp)
    image, plain_one = pixels_of(out), upsampled(colours, truth.shape[1:])
    assert error_of(image, truth) < 0.5 * error_of(plain_one, truth)
    assert detail_shared(image, truth) > 0.9 > detail_shared(plain_one, truth)
    means = image.mean(axis=(1, 2)) / truth.mean(axis=(1, 2))
    np.testing.assert_allclose(means, 1, atol=0.01)


@pytest.mark.parametrize(
    ("of_colours", "of_pan", "by"),
    [("float32", "uint16", 1e-4), ("uint16", "uint8", 1), ("uint8", "uint16", 0.06), ("int16", "uint16", 1)],
)
def test_types_may_differ(of_colours, of_pan, by, tmp_path):
    truth = ground()
    colours, sharp = pair(tmp_path, truth, gain=0.05 if of_pan == "uint8" else 0.6)
    write(colours, (pixels_of(colours) * by).astype(of_colours), transform=NORTH_UP @ Affine.scale(4))
    write(sharp, pixels_of(sharp).astype(of_pan))
    out, _ = sharpen(colours, sharp, bands="blue,green,red,nir")
    image = pixels_of(out)
    assert image.dtype == of_colours
    np.testing.assert_allclose(image.mean(axis=(1, 2)) / (by * truth.mean(axis=(1, 2))), 1, atol=0.02)
    assert detail_shared(image, truth) > 0.85


def test_nodata_of_pan_alone_is_that_of_the_scene(tmp_path):
    colours, sharp = pair(tmp_path, ground())
    one = pixels_of(sharp)
    one[:, :100] = 0
    write(sharp, one, nodata=0)
    out, _ = sharpen(colours, sharp)
    with rasterio.open(out) as dataset:
        assert dataset.nodatavals == (0,) * 4
        assert not dataset.read()[:, :100].any()
        assert dataset.read()[:, 110:].all()
    with rasterio.open(out.with_name("out_provenance.tif")) as dataset:
        assert not dataset.read()[:, :100].any()


@pytest.mark.parametrize("gain", [0.2, 3.0])
def test_the_gain_of_pan_changes_no_colour(gain, tmp_path):
    truth = ground()
    out, report = sharpen(*pair(tmp_path, truth, gain=gain))
    np.testing.assert_allclose(pixels_of(out).mean(axis=(1, 2)) / truth.mean(axis=(1, 2)), 1, atol=0.01)
    weights = report.product["weights of the bands in pan"]
    assert sum(weights) == pytest.approx(gain, rel=0.02)  # each of them is less certain: bands are alike


SOUTH_UP = Affine(0.5, 0, 4e5, 0, 0.5, 4.4e6)
TURNED = NORTH_UP @ Affine.rotation(17)


@pytest.mark.parametrize("where", [NORTH_UP, SOUTH_UP, TURNED], ids=["north up", "south up", "turned"])
def test_the_scene_lies_where_pan_lies(where, tmp_path):
    truth = ground()
    out, _ = sharpen(*pair(tmp_path, truth, where=where))
    with rasterio.open(out) as dataset:
        assert dataset.transform == where
        assert dataset.crs == UTM
        assert dataset.shape == (SIDE, SIDE)
        assert dataset.descriptions == NAMES
    assert error_of(pixels_of(out), truth) < 0.05 * truth.mean()


def test_without_georeferencing_the_two_cover_the_same(tmp_path):
    truth = ground()
    colours, sharp = pair(tmp_path, truth, where=None, crs=None)
    for path, scale in ((sharp, 1), (colours, 4)):
        with rasterio.open(path, "r+") as dataset:
            rpc = rational()
            rpc.line_off, rpc.samp_off = rpc.line_off / scale, rpc.samp_off / scale
            rpc.line_scale, rpc.samp_scale = rpc.line_scale / scale, rpc.samp_scale / scale
            dataset.rpcs = rpc
    out, _ = sharpen(colours, sharp)
    assert error_of(pixels_of(out), truth) < 0.05 * truth.mean()
    with rasterio.open(out) as dataset:
        assert dataset.crs is None
        assert (dataset.rpcs.line_off, dataset.rpcs.samp_scale) == (60.5, 45.0)  # PAN's


def test_a_shift_between_the_two_is_followed(tmp_path):
    """The coarse grid begins 2 px of PAN to the left and 6 above, and ends beyond PAN."""
    truth = ground(SIDE + 16)
    colours, _ = pair(tmp_path, truth)
    inner = truth[:, 6 : 6 + SIDE, 2 : 2 + SIDE]
    pan = np.tensordot(WEIGHTS, inner, 1)[None].round().astype("uint16")
    where = NORTH_UP @ Affine.translation(2, 6)
    sharp = write(tmp_path / "pan.tif", pan, transform=where)
    out, _ = sharpen(colours, sharp)
    with rasterio.open(out) as dataset:
        assert dataset.transform == where
    assert error_of(pixels_of(out), inner) < 0.05 * truth.mean()


def test_only_what_both_cover_comes_out(tmp_path):
    """PAN reaches 21 px further on all sides; its RPCs then begin elsewhere, too."""
    truth = ground()
    colours, _ = pair(tmp_path, truth)
    pan = np.tensordot(WEIGHTS, truth, 1)[None].round()
    wide = np.pad(pan, ((0, 0), (21, 21), (21, 21)), mode="edge").astype("uint16")
    where = NORTH_UP @ Affine.translation(-21, -21)
    sharp = write(tmp_path / "pan.tif", wide, transform=where)
    with rasterio.open(sharp, "r+") as dataset:
        dataset.rpcs = rational()
    out, _ = sharpen(colours, sharp)
    with rasterio.open(out) as dataset:
        assert dataset.shape == (SIDE, SIDE)
        np.testing.assert_allclose(dataset.transform, NORTH_UP, rtol=1e-12)
        assert (dataset.rpcs.line_off, dataset.rpcs.samp_off) == (60.5 - 21, 45.5 - 21)
    assert error_of(pixels_of(out), truth) < 0.05 * truth.mean()
    assert pixels_of(out).min() > 0  # no rim without colour


@pytest.mark.parametrize("in_pan", [0, 65535])
def test_nodata_stays_nodata(in_pan, tmp_path):
    truth = ground()
    colours, sharp = pair(tmp_path, truth)
    many, one = pixels_of(colours), pixels_of(sharp)
    many[:, :10] = 0
    one[:, 200:240] = in_pan
    write(colours, many, transform=NORTH_UP @ Affine.scale(4), nodata=0)
    write(sharp, one, nodata=in_pan)
    out, _ = sharpen(colours, sharp, bands="blue,green,red,nir")
    image = pixels_of(out)
    assert (image[:, :36] == 0).all()
    assert (image[:, 200:240] == 0).all()
    assert (image[:, 60:190] > 0).all()
    with rasterio.open(out) as dataset:
        assert dataset.nodata == 0
    np.testing.assert_allclose(image[:, 60:190].mean() / truth[:, 60:190].mean(), 1, atol=0.01)


def test_what_is_said_of_the_bands_comes_through(tmp_path):
    colours, sharp = pair(tmp_path, ground(128))
    with rasterio.open(colours, "r+") as dataset:
        dataset.update_tags(SENSOR="PMS", NOTE="<&>")
        dataset.update_tags(2, wavelength="560")
        dataset.units = ("W/m2",) * 4
        dataset.scales, dataset.offsets = (0.1, 0.2, 0.3, 0.4), (1.0, 0.0, 0.0, -1.0)
    out, _ = sharpen(colours, sharp)
    with rasterio.open(out) as dataset:
        assert (dataset.tags()["SENSOR"], dataset.tags()["NOTE"]) == ("PMS", "<&>")
        assert dataset.tags(2)["wavelength"] == "560"
        assert dataset.units == ("W/m2",) * 4
        assert dataset.scales == (0.1, 0.2, 0.3, 0.4)
        assert dataset.offsets == (1.0, 0.0, 0.0, -1.0)


# -- as a scene ----------------------------------------------------------------------------------------------


def test_workers_read_the_pair_for_themselves(tmp_path):
    colours, sharp = pair(tmp_path, ground())
    options = {"restorer": smooth, "pan": str(sharp), "mask": "none", "blocksize": 128}
    process_scene(colours, tmp_path / "one.tif", **options)
    process_scene(colours, tmp_path / "two.tif", workers=2, **options)
    np.testing.assert_array_equal(pixels_of(tmp_path / "one.tif"), pixels_of(tmp_path / "two.tif"))


def test_an_interrupted_pair_goes_on(tmp_path):
    colours, sharp = pair(tmp_path, ground(960))
    failing, _ = failing_after(12)
    out = tmp_path / "out.tif"
    options = {"pan": str(sharp), "mask": "none", "blocksize": 128, "batch_size": 2}
    with pytest.raises(OSError, match="fire"):
        process_scene(colours, out, restorer=failing, **options)
    assert vrt_path(out).exists()
    report = process_scene(colours, out, restorer=smooth, **options)
    assert report.tiles["windows_resumed"] > 0
    process_scene(colours, tmp_path / "whole.tif", restorer=smooth, **options)
    np.testing.assert_array_equal(pixels_of(out), pixels_of(tmp_path / "whole.tif"))
    assert not list(tmp_path.glob(".*"))


def test_another_pan_is_another_run(tmp_path):
    colours, sharp = pair(tmp_path, ground(960))
    failing, _ = failing_after(12)
    options = {"pan": str(sharp), "mask": "none", "blocksize": 128, "batch_size": 2}
    with pytest.raises(OSError, match="fire"):
        process_scene(colours, tmp_path / "out.tif", restorer=failing, **options)
    pixels = pixels_of(sharp)
    write(sharp, pixels + 1)
    with pytest.raises(ResumeError, match="input"):
        process_scene(colours, tmp_path / "out.tif", restorer=failing, **options)


def test_the_command_line_sharpens(tmp_path):
    colours, sharp = pair(tmp_path, ground(128))
    call = ["process", str(colours), "--pan", str(sharp), "--out", str(tmp_path / "o.tif")]
    done = CliRunner().invoke(main, [*call, "--model", "identity", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert RasterioScene.open(tmp_path / "o.tif").shape == (128, 128)


# -- what is refused -----------------------------------------------------------------------------------------


def refused(colours, sharp, error=PairError):
    out = colours.parent / "refused.tif"
    with pytest.raises(error) as caught:
        process_scene(colours, out, model="identity", pan=str(sharp))
    assert "\n" not in str(caught.value)
    assert not list(colours.parent.glob("*refused*"))
    return str(caught.value)


def test_files_that_do_not_go_together(tmp_path):
    colours, sharp = pair(tmp_path, ground(128))
    assert "has 4 bands, expected one" in refused(sharp, colours)
    assert "is 1 x 1 px of" in refused(
        colours, plain(tmp_path / "same.tif", (32, 32), 1, transform=NORTH_UP @ Affine.scale(4))
    )
    far = plain(tmp_path / "far.tif", (128, 128), 1, transform=NORTH_UP @ Affine.translation(9999, 0))
    assert "do not overlap" in refused(colours, far)
    turned = plain(tmp_path / "turned.tif", (128, 128), 1, transform=TURNED)
    assert "is rotated against" in refused(colours, turned)
    assert "is in EPSG:32650" in refused(colours, plain(tmp_path / "o.tif", (9, 9), 1, crs="EPSG:32651"))
    nowhere = plain(tmp_path / "nowhere.tif", (128, 128), 1, crs=None, transform=None)
    assert "has a CRS and" in refused(colours, nowhere)
    refused(colours, tmp_path / "not there.tif", SceneNotFoundError)


def test_rpcs_that_say_it_is_another_place(tmp_path):
    colours, sharp = pair(tmp_path, ground(128), where=None, crs=None)
    for path, longitude in ((sharp, 125.3), (colours, 126.3)):
        with rasterio.open(path, "r+") as dataset:
            rpc = rational()
            rpc.long_off = longitude
            dataset.rpcs = rpc
    assert "does not show the ground" in refused(colours, sharp)


def test_masks_and_alpha_are_refused(tmp_path):
    _, sharp = pair(tmp_path, ground(128))
    masked = tmp_path / "masked.tif"
    profile = {"driver": "GTiff", "count": 4, "height": 32, "width": 32, "dtype": "uint16", "crs": UTM}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(masked, "w", transform=NORTH_UP @ Affine.scale(4), **profile) as dataset,
    ):
        dataset.write(draw((32, 32), 4, "uint16"))
        dataset.write_mask(np.eye(32, dtype=bool))
    assert "has a mask or an alpha band" in refused(masked, sharp)


def test_the_output_is_no_file_of_the_pair(tmp_path):
    colours, sharp = pair(tmp_path, ground(128))
    for path in (colours, sharp):
        with pytest.raises(OutputError, match="is the input itself"):
            process_scene(colours, path, model="identity", pan=str(sharp), overwrite=True)


def test_a_folder_of_scenes_takes_no_pan(tmp_path):
    colours, sharp = pair(tmp_path, ground(128))
    with pytest.raises(OptionError, match="pan names one file"):
        process_directory(colours.parent, tmp_path / "out", model="identity", pan=str(sharp))
