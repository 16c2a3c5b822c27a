"""Options by name: a misspelt one is refused with the nearest name, an old name is still taken."""

import inspect
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from raster_cases import plain
from test_run import pixels_of

from decr_scene.pipeline import Options, process_directory, process_scene, restore
from decr_scene.pipeline.engine.cluster import memory_bytes, one_cluster
from decr_scene.pipeline.engine.graph import OF_FILES
from decr_scene.pipeline.errors import MaskError, OptionError, SceneNotFoundError
from decr_scene.pipeline.inspection.coverage import measure_coverage
from decr_scene.pipeline.inspection.summary import inspect_scene
from decr_scene.pipeline.planning.options import OLD_NAMES, Choices
from decr_scene.pipeline.planning.restorer import spec_of

ARRAY = xr.DataArray(np.zeros((1, 9, 9), np.uint8), dims=("band", "y", "x"))


def test_the_keywords_are_the_fields_with_their_types():
    assert {field.name: field.type for field in fields(Options)} == {
        name: hint.__forward_arg__ for name, hint in Choices.__annotations__.items()
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda folder, **named: process_scene(folder / "a.tif", folder / "b.tif", **named),
        lambda folder, **named: process_directory(folder / "a", folder / "b", **named),
        lambda folder, **named: inspect_scene(folder / "a.tif", **named),
        lambda folder, **named: measure_coverage(folder / "a.tif", **named),
        lambda folder, **named: restore(ARRAY, **named),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest_name(call, tmp_path):
    with pytest.raises(OptionError, match=r"^there is no option weigth_floor: did you mean weight_floor\?$"):
        call(tmp_path, weigth_floor=0.5)
    assert not any(tmp_path.iterdir())


def test_restore_takes_what_an_array_has_a_use_for_and_refuses_the_rest_by_name():
    own = set(inspect.signature(process_scene).parameters) - {"src", "dst", "options", "named"}
    assert own == OF_FILES
    for name in own:
        with pytest.raises(OptionError, match=f"restore .* takes no {name}, "):
            restore(ARRAY, **{name: None})
    for name, value in {"pan": "pan.tif", "other_date": "other.tif", "samples": 2}.items():
        with pytest.raises(OptionError, match=f"restore takes no {name}, "):
            restore(ARRAY, model="identity", **{name: value})
    with pytest.raises(MaskError, match=r"none\.tif cannot be read"):
        restore(ARRAY, model="identity", mask="none.tif")


def test_a_misspelt_keyword_of_the_function_itself_is_known(tmp_path):
    with pytest.raises(OptionError, match=r"did you mean workers\?"):
        process_scene(tmp_path / "a.tif", tmp_path / "b.tif", worker=2)


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(
        OptionError, match=r"there is no option xyzzy: take some of .*seed.*, steps"
    ) as caught:
        Options.given(None, {"xyzzy": 1})
    assert "\n" not in str(caught.value)


def test_a_name_goes_before_the_value():
    assert Options.given(Options(seed=1, steps=2), {"seed": 3}) == Options(seed=3, steps=2)


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_is_taken_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
        assert getattr(Options.given(None, {old: "file.tif"}), new) == "file.tif"


@pytest.mark.parametrize("name", ["model", "mask", "other_date", "aoi", "pan"])
def test_a_path_is_taken_as_its_name_and_what_is_none_is_refused(name, tmp_path):
    assert getattr(Options(**{name: Path("a") / "b.tif"}), name) == str(Path("a") / "b.tif")
    with pytest.raises(OptionError, match=rf"^{name} is a int, expected a path or a name$"):
        process_scene(tmp_path / "a.tif", tmp_path / "b.tif", **{name: 3})


def test_two_lambdas_are_two_restorers():
    """A run that one of them left unfinished is not gone on with by the other."""
    first, second = (spec_of(Options(restorer=r))[0].name for r in (lambda t, n: t, lambda t, n: t * 0))
    assert first != second


@pytest.mark.parametrize("name", ["fill", "identity"])
def test_a_callable_that_is_called_as_what_is_built_in_is_none_of_those(name, tmp_path):
    def brighter(tiles, noise):
        return tiles + 0.1

    brighter.__name__ = name
    assert spec_of(Options(restorer=brighter))[0].name != spec_of(Options(model=name))[0].name
    scene = plain(tmp_path / "scene.tif", (40, 50), 1, "uint16")
    report = process_scene(scene, tmp_path / "clean.tif", restorer=brighter)
    assert list(report.scaling.values()) != [[0.0, 1.0]]
    assert (pixels_of(tmp_path / "clean.tif") != pixels_of(scene)).mean() > 0.9


@pytest.mark.parametrize("name", ["model", "mask", "other_date", "aoi", "pan", "bands", "asset"])
def test_an_empty_name_is_none(name):
    with pytest.raises(OptionError, match=f"{name} is empty"):
        Options(**{name: ""})


def test_an_empty_address_is_no_cluster():
    with pytest.raises(OptionError, match="scheduler is empty"):
        one_cluster("", None)


@pytest.mark.parametrize("limit", ["", "GB", "1e999GB", "-1GB", 0])
def test_a_limit_without_a_size_is_refused(limit):
    with pytest.raises(OptionError, match="memory limit must be a size"):
        memory_bytes(limit, None)


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    """One scene lies there, which nobody has named."""
    monkeypatch.chdir(tmp_path)
    plain(Path("scene.tif"), (30, 40), 3)
    with pytest.raises(SceneNotFoundError, match="name of the scene is empty"):
        process_scene("", "out.tif", model="identity")
    with pytest.raises(OptionError, match="name of the folder is empty"):
        process_directory("", "out", model="identity")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": "three"}, "steps is a str, expected a whole number"),
        ({"seed": 1.5}, "seed is a float, expected a whole number"),
        ({"seed": None}, "seed is a NoneType, expected a whole number"),
        ({"samples": True}, "samples is a bool, expected a whole number"),
        ({"weight_floor": "0.5"}, "weight_floor is a str, expected a number"),
        ({"gain": -1}, "gain must be in 0 to 8, got -1"),
        ({"bands": ["blue", "green"]}, "bands is a list, expected text"),
        ({"device": None}, "device is a NoneType, expected text"),
        ({"mask": None}, "mask is a NoneType, expected a path or a name"),
        ({"restorer": "fill"}, "restorer is a str, expected a callable"),
        ({"scale": "0,1"}, "scale must be low,high"),
        ({"scale": (1,)}, "scale must be low,high"),
        ({"scale": (1, 2, 3)}, "scale must be low,high"),
    ],
)
def test_an_option_of_another_type_is_refused(given, told):
    with pytest.raises(OptionError, match=told):
        Options(**given)


def test_numbers_of_numpy_are_numbers():
    assert Options(steps=np.int64(3), weight_floor=np.float32(0.5), scale=np.array([0, 9])).steps == 3


def test_a_run_takes_numbers_of_numpy(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 280))
    own = {"seed": 3, "overlap": 32, "weight_floor": 0.5, "scale": (0, 900)}
    theirs = {
        "seed": np.int64(3),
        "overlap": np.int32(32),
        "weight_floor": np.float32(0.5),
        "scale": np.array([0, 900], np.float32),
    }
    assert Options(**theirs) == Options(**own)
    process_scene(scene, tmp_path / "out.tif", model="identity", **theirs)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"src": None}, "src is a NoneType, expected a path or a name"),
        ({"src": ["a.tif"]}, "src is a list"),
        ({"dst": b"o.tif"}, "dst is a bytes"),
        ({"options": {"steps": 3}}, "options is a dict, expected an Options"),
        ({"cancel": True}, "cancel is a bool, expected a flag with is_set"),
        ({"workers": "2"}, "workers must be 1 or more, got '2'"),
        ({"blocksize": 512.0}, "blocksize must be a positive multiple of 16 px, .* got 512.0"),
    ],
)
def test_an_argument_of_another_type_is_refused_before_anything_is_opened(given, told):
    with pytest.raises(OptionError, match=told):
        process_scene(**{"src": "no.tif", "dst": "o.tif", **given})


@pytest.mark.parametrize("given", [(None, "o"), ("in", None), (["a.tif"], "o")])
def test_a_folder_that_is_no_name_is_refused(given):
    with pytest.raises(OptionError, match="expected a path or a name"):
        process_directory(*given)
