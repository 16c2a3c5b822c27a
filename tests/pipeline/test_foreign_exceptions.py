"""What others would raise is told by us, in one line, when the call is made where it can be known then."""

import builtins
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from raster_cases import plain
from rasterio.errors import CRSError, DriverRegistrationError, RasterioIOError

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import read_model_config, read_model_file, save_model_file
from decr_scene.models.errors import CheckpointError, TrainingError
from decr_scene.models.training.config import read_config
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.engine.graph import restore
from decr_scene.pipeline.errors import OptionError, RestorerError, SceneError, in_one_line
from decr_scene.pipeline.raster.scene import open_scene
from decr_scene.pipeline.run import process_scene

ZEROS = np.zeros((3, 4, 5), np.uint8)
NO_SCENES = {
    "a dataset": xr.Dataset({"red": (("y", "x"), ZEROS[0])}),
    "an array of numpy": ZEROS,
    "a time axis": xr.DataArray(ZEROS[None], dims=("time", "band", "y", "x")),
    "no band axis": xr.DataArray(ZEROS[0], dims=("y", "x")),
    "other names": xr.DataArray(ZEROS, dims=("band", "lat", "lon")),
    "bands last": xr.DataArray(ZEROS, dims=("y", "x", "band")),
    "no pixels": xr.DataArray(ZEROS[:, :0], dims=("band", "y", "x")),
    "complex": xr.DataArray(ZEROS.astype(complex), dims=("band", "y", "x")),
    "dates for columns": xr.DataArray(
        ZEROS, dims=("band", "y", "x"), coords={"y": np.arange(4), "x": np.arange(5).astype("M8[D]")}
    ),
    "no CRS that PROJ knows": xr.DataArray(ZEROS, dims=("band", "y", "x"), attrs={"crs": "no such"}),
    "words for nodata": xr.DataArray(ZEROS, dims=("band", "y", "x"), attrs={"_FillValue": "none"}),
}


@pytest.mark.parametrize("kind", NO_SCENES)
def test_what_is_no_scene_is_refused_when_restore_is_called(kind):
    with pytest.raises(SceneError, match=r"array|Dataset"):
        restore(NO_SCENES[kind], model="identity")


@pytest.mark.parametrize("option", ["scheduler", "client", "polygons", "progress", "cancel"])
def test_what_is_no_such_argument_is_refused_when_the_call_is_made(option, tmp_path):
    with pytest.raises(OptionError, match=f"{option} is a int, expected"):
        process_scene("no.tif", tmp_path / "out.tif", **{option: 5})


@pytest.mark.parametrize("name", [None, 5, b"scene.tif"])
def test_what_is_no_name_of_a_raster_is_refused(name):
    with pytest.raises(OptionError, match=r"the input is a \w+, expected a path or a name"):
        open_scene(name)


@pytest.mark.parametrize("dtype", [complex, object, "U8"])
def test_an_answer_that_is_no_real_numbers_is_refused(dtype):
    scene = xr.DataArray(np.arange(60, dtype=np.uint16).reshape(3, 4, 5), dims=("band", "y", "x"))
    with pytest.raises(RestorerError, match="expected real numbers"):
        restore(scene, restorer=lambda tiles, noise: tiles.astype(dtype)).compute()


@pytest.mark.parametrize("names", [7, ("a", "b"), None, "one"])
def test_names_that_are_none_do_no_harm(names):
    scene = xr.DataArray(ZEROS, dims=("band", "y", "x"), attrs={"long_name": names})
    assert (restore(scene, model="identity") == scene).all()


RUN = """
stage = "reference"
bands = ["red", "green", "blue"]
steps = 5
[[data]]
cloudy = "a"
clear = "b"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps = 5", 'steps = "three"'),
        ("steps = 5", "steps = 2.5"),
        ("steps = 5", "steps = true"),
        ("steps = 5", 'steps = 5\nlearning_rate = "x"'),
        ("steps = 5", "steps = 5\nlearning_rate = nan"),
        ("steps = 5", "steps = 5\nseed = -1"),
        ("steps = 5", 'steps = 5\nprecision = "fp8"'),
        ('bands = ["red", "green", "blue"]', "bands = 3"),
        ('bands = ["red", "green", "blue"]', "bands = [1, 2, 3]"),
        ("[[data]]", 'data = "here"\n[more]'),
        ("stage", "["),
        ("steps = 5", ""),
    ],
)
def test_a_run_of_wrong_values_is_told_in_one_line(old, new, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(RUN.replace(old, new))
    with pytest.raises(TrainingError, match=r"run\.toml"):
        read_config(path)


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff\xfe\x00")]
)
def test_a_run_that_is_no_file_of_text_is_too(make, tmp_path):
    make(tmp_path / "run.toml")
    with pytest.raises(TrainingError, match=r"run\.toml"):
        read_config(tmp_path / "run.toml")


def test_a_run_may_have_a_mark_of_its_byte_order(tmp_path):
    """As editors of Windows write it."""
    marked, plain_text = tmp_path / "marked.toml", tmp_path / "run.toml"
    marked.write_text(RUN, encoding="utf-8-sig")
    plain_text.write_text(RUN)
    assert read_config(marked) == read_config(plain_text)


# -- model files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return read_model_file(find_model("rice2"))


@pytest.mark.parametrize("spoil", [lambda t: t * float("nan"), lambda t: t / 0, lambda t: t.to(torch.int64)])
def test_weights_that_are_no_numbers_are_refused(spoil, model, tmp_path):
    config, tensors = model
    name = next(iter(tensors))
    save_model_file(tmp_path / "m", config, {**tensors, name: spoil(tensors[name])})
    with pytest.raises(CheckpointError, match=r"not finite|of int64"):
        read_model_file(tmp_path / "m")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"weight_floor": 0', '"weight_floor": 9'),
        ('"weight_floor": 0', '"weight_floor": NaN, "steps": 0'),
        ('"halo": 0', '"halo": 1.5'),
        ('"bands": ["red"', '"bands": [1'),
        ("{", "[" * 100_000),
        ("{", "["),
    ],
)
def test_a_configuration_of_wrong_values_is_refused(old, new, model, tmp_path):
    import json
    from dataclasses import asdict

    from safetensors.torch import save_file

    config, _ = model
    values = {"format": 2, **asdict(config)}
    values["sampling"] |= {"weight_floor": 0, "halo": 0}
    text = json.dumps(values).replace(str(config.bands[0]), "red", 1).replace(old, new, 1)
    save_file({"x": torch.zeros(1)}, tmp_path / "m", metadata={"decr_scene": text})
    with pytest.raises(CheckpointError):
        read_model_config(tmp_path / "m")


@pytest.mark.parametrize("raw", [b"", b"text", b"\x80\x02}q\x00.", b"\x80\x04K\x05.", bytes(range(256))])
def test_a_checkpoint_that_is_none_is_told_in_one_line(raw, tmp_path):
    for name in ("de.pt", "mn.pth"):
        (tmp_path / name).write_bytes(raw)
    args = [
        "models",
        "import",
        tmp_path / "de.pt",
        "--reference",
        tmp_path / "mn.pth",
        "--out",
        tmp_path / "o",
    ]
    done = CliRunner().invoke(main, [str(word) for word in args])
    assert done.exit_code == 1
    assert "unexpected" not in done.output
    assert "weights_only" not in done.output


def test_keys_that_are_no_names_are_told_in_one_line(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "de.pt")
    args = ["models", "import", "de.pt", "--reference", "de.pt", "--out", "o"]
    done = CliRunner().invoke(
        main, [str(tmp_path / word) if "." in word or word == "o" else word for word in args]
    )
    assert "its 1 is no name of a tensor" in done.output


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch, tmp_path):
    import sys

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("skimage"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    rooms = ("decr_scene.pipeline.evaluation", "decr_scene.pipeline.measures")
    for module in [m for m in sys.modules if m.startswith(rooms)]:
        monkeypatch.delitem(sys.modules, module)
    for room in rooms:
        monkeypatch.delattr(sys.modules["decr_scene.pipeline"], room.rsplit(".", 1)[1], raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    done = CliRunner().invoke(main, ["evaluate", "--data", str(Path(tmp_path))])
    assert done.exit_code == 1
    assert "needs skimage, which is not installed: pip install 'decr-scene[train]'" in done.output


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate 74.5 GiB"), "memory does not suffice (Unable to allocate 74.5 GiB)"),
        (OSError(24, "Too many open files", "a.tif"), "a.tif: Too many open files: check"),
        (OSError(28, "No space left on device"), "No space left on device: check"),
        (RasterioIOError("no way"), "GDAL cannot go on (no way): check"),
        (CRSError("no such code"), "GDAL cannot go on (no such code): check"),
        (
            CRSError("PROJ: Cannot find proj.db"),
            "GDAL is not what it should be here (PROJ: Cannot find proj.db)",
        ),
        (DriverRegistrationError("Unrecognized driver: COG"), "GDAL is not what it should be here (Unrecog"),
        (KeyError("x"), "unexpected KeyError: 'x'"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_the_programs(error, told):
    assert in_one_line(error).startswith(told)


def test_blocks_that_no_memory_holds_are_refused(tmp_path):
    with pytest.raises(OptionError, match="8192 at most"):
        process_scene("no.tif", tmp_path / "out.tif", blocksize=100_000)


def test_what_gdal_tells_of_a_damaged_raster_is_one_line_of_ours(tmp_path):
    """GDAL tells it on standard error itself, before we do."""
    scene = plain(tmp_path / "scene.tif", (50, 60), 1)
    there, none = (struct.pack("<HHI", 33922, 12, count) for count in (6, 0))
    assert scene.read_bytes().count(there) == 1
    scene.write_bytes(scene.read_bytes().replace(there, none))
    assert_one_line_on_stderr(scene)


def test_what_gdal_tells_in_another_encoding_is_one_line_of_ours(tmp_path):
    """rasterio tells its own trouble with it, too."""
    (tmp_path / "a.vrt").write_bytes(b'<VRTDataset rasterXSize="4" rasterYSize="4"><caf\xe9>')
    assert_one_line_on_stderr(tmp_path / "a.vrt", "not a raster that GDAL reads (Line 0")


def assert_one_line_on_stderr(scene, *words):
    program = [sys.executable, "-m", "decr_scene.pipeline"]
    call = ["process", str(scene), "--out", str(scene.with_name("o.tif")), "--model", "identity"]
    done = subprocess.run([*program, *call], capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["decr-scene:"]
    assert all(word in done.stderr for word in words)
