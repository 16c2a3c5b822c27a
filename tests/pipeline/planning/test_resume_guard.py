"""What an earlier version has left is gone on with only where the pixels are the same."""

import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from math import hypot
from types import SimpleNamespace

import numpy as np
from places import WEIGHTS
from raster_cases import as_png, vrt_of, write

from decr_scene.pipeline.look.look_plan import LookPlan
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.writing.journal import Journal


def test_what_later_versions_do_to_a_first_guess_counts_only_where_it_is_done(tmp_path):
    plain = LookPlan("ukis", 2, 0.5)
    with RasterioScene.open(write(tmp_path / "scene.tif", np.ones((3, 20, 20), np.uint8))) as scene:
        planned = plan_scene(scene, Options(model="identity"))
        filling = replace(plain, fills=True)
        without, before, held, filled, doubting = (
            run_guard(scene, replace(planned, look=look), "deflate", 512)
            for look in (None, plain, replace(plain, tones=True), filling, replace(filling, veils=True))
        )
    assert without["look"] is None
    assert before["look"] == ["ukis", 2, 0.5, (), True, False, None, False], "as a run before wrote it"
    assert held.keys() - before.keys() == {"low pass of the first guess's tone"}
    assert held["look"] == before["look"]
    of_filled = {"rim of the mask", "rims of remnants", "detail of the ground in what gives way"}
    assert filled.keys() - before.keys() == of_filled
    assert doubting.keys() - filled.keys() == {"veils that are believed"}
    curved = replace(planned, plan=replace(planned.plan, radiometry=planned.plan.radiometry.curved()))
    with RasterioScene.open(tmp_path / "scene.tif") as scene:
        after = run_guard(scene, replace(curved, look=plain), "deflate", 512)
    assert after.keys() - before.keys() == {"curve of the scaling"}
    assert after["scaling"] == before["scaling"]


def test_whose_detector_looks_counts_and_so_do_its_weights(tmp_path, monkeypatch):
    own = LookPlan("model", 4, 0.5, (0, 1, 2))
    with RasterioScene.open(write(tmp_path / "scene.tif", np.ones((3, 20, 20), np.uint8))) as scene:
        planned = plan_scene(scene, Options(model="identity"))

        def guard(look):
            return run_guard(scene, replace(planned, look=look), "deflate", 512)

        before, lent = guard(own), guard(replace(own, lender="rgb"))
        assert lent.keys() - before.keys() == {"detector lent by"}
        assert lent["look"] == before["look"]
        assert guard(replace(own, lender="rice2")) != lent
        weights = WEIGHTS / "rice2.safetensors"
        monkeypatch.setattr("decr_scene.models.bundled.find_model", lambda name: weights)
        assert guard(replace(own, lender="rgb")) != lent, "another file goes by that name"


def test_what_later_versions_see_of_another_date_and_around_an_area_counts_only_with_them(tmp_path):
    with RasterioScene.open(write(tmp_path / "scene.tif", np.ones((3, 20, 20), np.uint8))) as scene:
        planned = plan_scene(scene, Options(model="identity"))
        other = SimpleNamespace(dates=[SimpleNamespace(path=scene.path, look=None)])
        area = SimpleNamespace(digest="of the area")
        guesses = replace(planned.plan.spec, bands=("red", "green", "blue"))
        before, dated, alone, around = (
            run_guard(scene, replace(planned, plan=replace(planned.plan, **changes)), "deflate", 512)
            for changes in ({}, {"other": other}, {"aoi": area}, {"aoi": area, "spec": guesses})
        )
    assert dated.keys() - before.keys() == {"how other dates are taken", "who looks at other dates"}
    assert alone.keys() == before.keys(), "without a first guess an area changes nothing outside"
    assert around.keys() - before.keys() == {"ground that is seen around the area"}


def test_what_a_sidecar_says_of_the_values_counts_and_its_statistics_do_not(tmp_path):
    path = as_png(tmp_path)
    sidecar = path.with_name(path.name + ".aux.xml")

    def values(text):
        sidecar.write_text(f"<PAMDataset>{text}</PAMDataset>")
        with RasterioScene.open(path) as scene:
            return run_guard(scene, plan_scene(scene, Options(model="identity")), "deflate", 512)

    before = values("")
    bands = [f'<PAMRasterBand band="{band}">{{0}}</PAMRasterBand>' for band in (1, 2, 3)]
    known = '<Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata>'
    assert values("".join(band.format(known) for band in bands)) == before
    declared = values("".join(band.format("<NoDataValue>0</NoDataValue>") for band in bands))
    assert [key for key in before if before[key] != declared[key]] == ["values of the input"]
    earlier = {key: value for key, value in before.items() if key != "values of the input"}
    Journal(tmp_path / "journal", earlier).close()
    Journal(tmp_path / "journal", declared).close()  # an earlier version did not note it


def test_a_mask_is_all_the_files_that_it_is_made_of(tmp_path):
    pixels = np.ones((1, 20, 20), np.uint8)
    path, source = write(tmp_path / "scene.tif", np.ones((3, 20, 20), np.uint8)), tmp_path / "mask.tif"
    mask = tmp_path / "mask.vrt"
    mask.write_text(vrt_of(write(source, pixels)))

    def guard(chosen):
        with RasterioScene.open(path) as scene:
            return run_guard(
                scene, plan_scene(scene, Options(model="fill", mask=str(chosen))), "deflate", 512
            )

    before, alone = guard(mask), guard(source)
    assert before.keys() - alone.keys() == {"files of the mask"}
    assert guard(mask) == before
    pixels[:, :9] = 0
    write(source, pixels)
    assert [key for key in before if before[key] != guard(mask)[key]] == ["files of the mask"]


def test_partials_and_objects_that_tell_what_they_are_differ_by_it():
    def name(restorer):
        return spec_of(Options(restorer=restorer))[0].name

    def shift(tiles, noise, by):
        return tiles - by

    assert name(partial(shift, by=0.5)) == name(partial(shift, by=0.5)) != name(partial(shift, by=0.1))
    assert name(Shift(0.5)) == name(Shift(0.5)) != name(Shift(0.1))
    assert name(Shift(0.5)).startswith("Shift ")
    assert name(Shift(np.arange(3))) != name(Shift(np.arange(4)))
    filled = Shift(0.5)
    filled.opened = object()
    assert name(filled) == name(Shift(0.5)), "what it holds open is no part of it"
    ring = [1]
    ring.append(ring)
    assert name(partial(shift, by=ring)) == name(partial(shift, by=ring))
    assert name(Plain()) == name(Plain()) == "Plain"
    assert name(shift) == "shift"
    # what is not plain counts by its type, in this process and in another
    bands = {"red", "green", "blue", "nir"}
    code = f"""
import threading
from functools import partial
from math import hypot
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.restorer import spec_of
print(spec_of(Options(restorer=partial(hypot, {bands!r}, lock=threading.Lock())))[0].name)
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert name(partial(hypot, bands, lock=threading.Lock())) == other.strip()


@dataclass
class Shift:
    by: float
    opened: object = field(init=False, repr=False, compare=False)

    def __call__(self, tiles, noise):
        return tiles - self.by


class Plain:
    def __call__(self, tiles, noise):
        return tiles
