"""Writing: every pixel and everything else of a raster comes through, as a valid COG, or nothing is left."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import raster_cases as cases
import rasterio
from places import SHARED
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate
from writer_cases import copy, pixels_of, spans

from decr_scene.pipeline.errors import (
    DiskSpaceError,
    OptionError,
    OutputError,
    OutputExistsError,
    SceneError,
    SceneReadError,
)
from decr_scene.pipeline.files import check_target
from decr_scene.pipeline.outputs.metadata_checks import verify_roundtrip
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.writing.origin import Companion, CopyOf
from decr_scene.pipeline.writing.writer import SceneWriter

REAL = sorted((SHARED / "odd").glob("*.tif")) + sorted((SHARED / "scenes").glob("*.tif"))
BGRN = ("blue", "green", "red", "nir")


def assert_comes_through(source, folder, **options):
    target = copy(source, folder / "out.tif", **options)
    one, other = pixels_of(source), pixels_of(target)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.view("uint8"), other.view("uint8"))  # NaN payloads too
    assert cog_validate(target, strict=True, quiet=True) == (True, [], [])
    assert all(verify_roundtrip(source, target).values()), verify_roundtrip(source, target)
    assert [path.name for path in folder.iterdir()] == ["out.tif"]
    return target


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def scene(tmp_path):
    """Four blocks of 256 px."""
    path = cases.plain(tmp_path / "scene.tif", (400, 500), 2)
    with RasterioScene.open(path) as opened:
        yield opened


# -- what comes through --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", cases.SIZES)
@pytest.mark.parametrize("count", [1, 4])
def test_every_pixel_of_any_raster(shape, count, dtype, tmp_path, out):
    source = cases.plain(tmp_path / "scene.tif", shape, count, dtype)
    assert_comes_through(source, out)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_any_number_of_bands(count, dtype, tmp_path, out):
    assert_comes_through(cases.plain(tmp_path / "scene.tif", (200, 150), count, dtype), out)


@pytest.mark.parametrize("name", cases.ODD)
def test_everything_of_odd_rasters(name, tmp_path, out):
    assert_comes_through(cases.ODD[name](tmp_path), out, blocksize=128)


@pytest.mark.skipif(not REAL, reason=f"NO REAL RASTERS HERE: {SHARED} is not there")
@pytest.mark.parametrize("source", REAL or [None], ids=lambda path: path and path.stem)
def test_everything_of_real_rasters(source, out):
    if source.stem == "truncated_corrupt":
        with pytest.raises(SceneReadError, match=r"truncated_corrupt\.tif: cannot read rows 512 to 1024"):
            copy(source, out / "out.tif")
        assert not list(out.iterdir())
    else:
        assert_comes_through(source, out)


@pytest.mark.parametrize("blocksize", [16, 48, 256, 1024])
@pytest.mark.parametrize("blocks", [1, 3])
def test_any_size_of_blocks(blocksize, blocks, tmp_path, out):
    source = cases.plain(tmp_path / "scene.tif", (257, 511), 3, "uint16")
    target = assert_comes_through(source, out, blocksize=blocksize, blocks=blocks)
    with rasterio.open(target) as dataset:
        assert dataset.block_shapes[0] == (blocksize, blocksize)


def test_blocks_come_in_any_order_from_any_thread(tmp_path, out):
    source = cases.nodata_collar(tmp_path)
    with (
        RasterioScene.open(source) as scene,
        SceneWriter(CopyOf(scene), out / "any.tif", blocksize=64) as writer,
    ):
        parts = spans(scene.shape, 64)
        random.Random(7).shuffle(parts)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda part: writer.write(part, scene.read(part.window)), parts))
    in_order = copy(source, out / "in_order.tif", blocksize=64)
    np.testing.assert_array_equal(pixels_of(source), pixels_of(out / "any.tif"))
    with rasterio.open(out / "any.tif") as one, rasterio.open(in_order) as other:
        for key in ("MINIMUM", "MAXIMUM", "VALID_PERCENT"):
            assert one.tags(2)[f"STATISTICS_{key}"] == other.tags(2)[f"STATISTICS_{key}"]


def test_what_gdal_keeps_beside_a_file_goes_along(tmp_path, out):
    target = copy(cases.with_attribute_table(tmp_path), out / "out.tif")
    assert {path.name for path in out.iterdir()} == {"out.tif", "out.tif.aux.xml"}
    assert "<Category>water</Category>" in cases.vrt_of(target)
    assert "GDALRasterAttributeTable" in cases.vrt_of(target)
    with rasterio.open(target) as dataset:
        assert dataset.tags(1)["STATISTICS_MAXIMUM"] != "99999"


def test_json_documents_come_through(tmp_path, out):
    source = cases.with_json(tmp_path)
    target = copy(source, out / "out.tif")
    assert all(verify_roundtrip(source, target).values())
    with rasterio.open(target) as dataset:
        assert dataset.tag_namespaces(1) == []
        assert "STATISTICS_MEAN" in dataset.tags(1)


def test_verification_sees_what_is_lost(tmp_path):
    source = cases.with_all_tags(tmp_path)
    bare = cases.plain(tmp_path / "bare.tif", (300, 280), transform=None, crs=None, nodata=1)
    lost = {name for name, kept in verify_roundtrip(source, bare).items() if not kept}
    assert lost == {
        *("crs", "transform", "nodata", "descriptions", "units", "scales", "offsets", "tags", "band_tags")
    }
    masked = verify_roundtrip(cases.internal_mask(tmp_path), cases.lossy(tmp_path))
    assert not masked["mask"]


@pytest.mark.parametrize(("maker", "told"), [("nodata", "different nodata"), ("mask", "mask of its own")])
def test_what_a_geotiff_cannot_say_is_refused(maker, told, tmp_path):
    bands = {
        "nodata": ("<NoDataValue>1</NoDataValue>", "<NoDataValue>2</NoDataValue>"),
        "mask": ('<MaskBand><VRTRasterBand dataType="Byte"/></MaskBand>',) * 2,
    }
    rows = [
        f'<VRTRasterBand dataType="Byte" band="{i}">{x}</VRTRasterBand>'
        for i, x in enumerate(bands[maker], 1)
    ]
    text = f'<VRTDataset rasterXSize="9" rasterYSize="9">{"".join(rows)}</VRTDataset>'
    with pytest.raises(SceneError, match=told):
        SceneWriter(CopyOf(RasterioScene.open(text)), tmp_path / "out.tif")
    assert not list(tmp_path.iterdir())


# -- what is refused, and what is left -----------------------------------------------------------------------


def write_a_block_and_stop(scene, target):
    with SceneWriter(CopyOf(scene), target, blocksize=256) as writer:
        writer.write(Span(0, 0, 256, 256), scene.read(Window(0, 0, 256, 256)))
        assert [path.name.startswith(".out.tif.") for path in target.parent.iterdir()] == [True]
        raise KeyboardInterrupt


def test_an_exception_on_the_way_leaves_nothing(scene, out):
    with pytest.raises(KeyboardInterrupt):
        write_a_block_and_stop(scene, out / "out.tif")
    assert not list(out.iterdir())


def instead_of_the_cog_driver(monkeypatch, function):
    whole = rasterio.shutil.copy

    def copy_or(source, target, driver, **options):
        (function if driver == "COG" else whole)(source, target, driver=driver, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", copy_or)


def test_a_failing_copy_leaves_nothing(scene, out, monkeypatch):
    def fail(_source, target, **_):
        Path(target).write_bytes(b"half")
        Path(f"{target}.ovr.tmp").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    instead_of_the_cog_driver(monkeypatch, fail)
    with pytest.raises(OutputError, match=r"out\.tif \(.*No space left on device; .* GB free\): check"):
        copy(scene.path, out / "out.tif")
    assert not list(out.iterdir())


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_file_that_is_silently_cut_off_is_found(scene, out, monkeypatch, share):
    """GDAL 3.10 may call a COG written whose last blocks did not fit the disk."""
    whole = rasterio.shutil.copy

    def cut(source, target, **options):
        whole(source, target, **options)
        content = Path(target).read_bytes()
        Path(target).write_bytes(content[: int(share * len(content))])

    instead_of_the_cog_driver(monkeypatch, cut)
    with pytest.raises(OutputError):
        copy(scene.path, out / "out.tif")
    assert not list(out.iterdir())


def test_an_existing_output_stays(scene, out):
    target = out / "out.tif"
    target.write_text("precious")
    with pytest.raises(OutputExistsError, match=r"out\.tif exists: .* --overwrite") as caught:
        copy(scene.path, target)
    assert isinstance(caught.value, FileExistsError)
    with pytest.raises(RuntimeError), SceneWriter(CopyOf(scene), target, overwrite=True):
        raise RuntimeError
    assert target.read_text() == "precious"
    copy(scene.path, target, overwrite=True)
    np.testing.assert_array_equal(pixels_of(target), pixels_of(scene.path))


def test_what_gdal_would_take_for_a_part_of_the_output_goes(scene, out):
    (out / "out.tif.aux.xml").write_text("<PAMDataset/>")
    with pytest.raises(OutputExistsError, match=r"out\.tif\.aux\.xml exists"):
        copy(scene.path, out / "out.tif")
    copy(scene.path, out / "out.tif", overwrite=True)
    assert [path.name for path in out.iterdir()] == ["out.tif"]


def test_the_input_is_never_the_output(scene, tmp_path):
    link = tmp_path / "link.tif"
    link.symlink_to(scene.path)
    for target in (Path(scene.path), link):
        with pytest.raises(OutputError, match="is the input itself"):
            copy(scene.path, target, overwrite=True)
    masked = cases.external_mask(tmp_path)
    with pytest.raises(OutputError, match="is a file of the input"):
        copy(masked, f"{masked}.msk", overwrite=True)


def test_folders_are_checked(scene, tmp_path):
    with pytest.raises(OutputError, match="no such folder"):
        copy(scene.path, tmp_path / "none" / "out.tif")
    with pytest.raises(OutputError, match="is a directory"):
        copy(scene.path, tmp_path)
    check_target(None, tmp_path / "fine.tif", overwrite=False)


def test_a_small_disk_is_refused_with_numbers(scene, out, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10_000_000 // 12))
    with pytest.raises(DiskSpaceError, match=r"has 0\.83 MB free, expected 1\.87 MB \(scratch"):
        copy(scene.path, out / "out.tif")


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (Span(0, 0, 100, 100), "whole blocks"),
        (Span(0, 10, 256, 256), "whole blocks"),
        (Span(256, 256, 256, 256), "whole blocks"),
        (Span(512, 0, 256, 256), "whole blocks"),
    ],
)
def test_half_blocks_are_refused(span, told, scene, out):
    with (
        pytest.raises(ValueError, match=told),
        SceneWriter(CopyOf(scene), out / "o.tif", blocksize=256) as writer,
    ):
        writer.write(span, np.ones((2, span.height, span.width), "uint16"))


def test_wrong_pixels_are_refused(scene, out):
    first, right = Span(0, 0, 256, 256), np.ones((2, 256, 256), "uint16")
    writer = SceneWriter(CopyOf(scene), out / "out.tif", blocksize=256).__enter__()
    for wrong in (right.astype("int16"), right[:1]):
        with pytest.raises(ValueError, match=r"pixels must be \(2, 256, 256\) of uint16"):
            writer.write(first, wrong)
    writer.write(first, right)
    with pytest.raises(ValueError, match=r"block \(0, 0\) is written already"):
        writer.write(first, right)
    with pytest.raises(OutputError, match="3 of 4 blocks were never written"):
        writer.__exit__(None, None, None)
    assert not list(out.iterdir())


def test_odd_sizes_of_blocks_are_refused(scene, out):
    with pytest.raises(OptionError, match="multiple of 16"):
        SceneWriter(CopyOf(scene), out / "o.tif", blocksize=100)


# -- companions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [cases.with_gcps, cases.with_rpc, cases.rotated, cases.no_georeferencing])
def test_a_companion_lies_where_its_scene_lies(maker, tmp_path):
    with RasterioScene.open(maker(tmp_path)) as scene:
        companion = Companion(scene, ("provenance",), np.dtype("uint8"), 0, (("CLASS_1", "original"),))
        with SceneWriter(companion, tmp_path / "out.tif", resampling="nearest") as writer:
            writer.write(Span(0, 0, *scene.shape), np.full((1, *scene.shape), 2, "uint8"))
        kept = verify_roundtrip(scene.path, tmp_path / "out.tif")
    assert all(kept[name] for name in ("shape", "crs", "transform", "gcps", "gcp_crs", "rpcs"))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.dtypes, dataset.nodata, dataset.descriptions) == (("uint8",), 0, ("provenance",))
        assert dataset.tags()["CLASS_1"] == "original"
        assert dataset.tags(1)["STATISTICS_MEAN"] == "2"
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True) == (True, [], [])
