"""The bundled models on the sample scenes: nearer to the truth, no worse than the first guess, tone kept."""

import numpy as np
import pytest
import rasterio
from places import SAMPLES, SHARED, WEIGHTS
from sample_cases import part_of

from decr_scene.models.bundled import bundled_models
from decr_scene.models.clouds.simulate import CloudRecipe, simulate
from decr_scene.models.clouds.veils import VeilRecipe, veiled
from decr_scene.models.data.tone import fit_tone, regions
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.measures.metrics import psnr

SCENES = {"landsat": "rice2", "rotterdam": "default"}
pytestmark = [pytest.mark.slow]


def read(path, top):
    with rasterio.open(path) as dataset:
        return dataset.read().astype(np.float32) / top * 2 - 1


@pytest.fixture(scope="module", params=SCENES)
def results(request, tmp_path_factory):
    """Input, reference alone, DE and truth of a sample scene, on [-1, 1]."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    cloudy = SAMPLES / f"{name}_cloudy.tif"
    process_scene(cloudy, folder / "de.tif", model=SCENES[name])
    process_scene(cloudy, folder / "guess.tif", model=SCENES[name], weight_floor=1, steps=1)
    with rasterio.open(cloudy) as dataset:
        top = 255 if dataset.dtypes[0] == "uint8" else float(np.percentile(dataset.read(), 99.9))
    paths = [cloudy, folder / "guess.tif", folder / "de.tif", SAMPLES / f"{name}_clear.tif"]
    return name, *(read(path, top) for path in paths)


def test_both_models_are_bundled_and_small():
    assert {"default", "rice2"} <= set(bundled_models())
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 40e6


def test_the_result_is_nearer_to_the_truth_than_the_input(results):
    name, cloudy, _, restored, clear = results
    truth = fit_tone(cloudy, clear).apply(clear) if name == "landsat" else clear
    area = regions(cloudy, truth)
    gain = psnr(restored, truth) - psnr(cloudy, truth)
    under_cloud = psnr(restored[:, area.cloud], truth[:, area.cloud]) - psnr(
        cloudy[:, area.cloud], truth[:, area.cloud]
    )
    print(f"{name}: {gain:+.2f} dB, under cloud {under_cloud:+.2f} dB")
    assert gain > 0
    assert under_cloud > 1


def test_diffusion_is_not_worse_than_its_first_guess(results):
    name, cloudy, guess, restored, clear = results
    truth = fit_tone(cloudy, clear).apply(clear) if name == "landsat" else clear
    print(f"{name}: first guess {psnr(guess, truth):.2f} dB, DE {psnr(restored, truth):.2f} dB")
    assert psnr(restored, truth) >= psnr(guess, truth) - 0.02


@pytest.mark.parametrize(("model", "bands"), [("rice2", 3), ("default", 4)])
def test_batch_size_changes_nothing_at_all(model, bands, tmp_path):
    source = SAMPLES / ("landsat_cloudy.tif" if bands == 3 else "rotterdam_cloudy.tif")
    scene = part_of(source, tmp_path / "scene.tif", 448, 448)  # four tiles: a batch of three, and one alone
    for size in (1, 3):
        options = {"mask": "none", "batch_size": size, "device": "cpu", "steps": 2}
        process_scene(scene, tmp_path / f"{size}.tif", model=model, **options)
    with rasterio.open(tmp_path / "1.tif") as one, rasterio.open(tmp_path / "3.tif") as three:
        np.testing.assert_array_equal(one.read(), three.read())


def test_clear_ground_keeps_its_tone(results):
    name, cloudy, _, restored, clear = results
    where = regions(cloudy, fit_tone(cloudy, clear).apply(clear)).clear
    if name == "rotterdam":
        where = (cloudy == clear).all(axis=0)
    shift = np.abs((restored - cloudy)[:, where].mean(axis=1)) * 127.5
    print(f"{name}: clear ground moves by {shift.round(2)} of 255")
    assert shift.max() <= 2


WHITE = CloudRecipe(scale=(40, 1500), finest=(2, 20), thickness=(0.5, 6), coverage=(0.3, 0.7), clear=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="NO SHARED DATA: clear fields of half a metre are not here")
def test_white_cloud_over_fields_of_half_a_metre_is_seen_and_clear_fields_are_not(tmp_path):
    """A sensor and a landscape that ours was not trained on; `ukis-csmask` sees none of this cloud."""
    path = SHARED / "clear4" / "geoeye1_0p5m_bgrn.tif"
    clear = read(path, 255)[:, :512, :512]
    drawn = simulate(clear, ("blue", "green", "red", "nir"), np.random.default_rng(100), WHITE)
    found = {}
    for name, image in (("cloudy", drawn.cloudy), ("clear", clear)):
        scene = tmp_path / f"{name}.tif"
        with rasterio.open(path) as source:
            profile = {**source.profile, "height": 512, "width": 512}
        with rasterio.open(scene, "w", **{**profile, "tiled": False}) as target:
            target.write(np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8))
            target.descriptions = ("blue", "green", "red", "nir")
        process_scene(scene, tmp_path / f"{name}_out.tif", model="default")
        found[name] = read(tmp_path / f"{name}_out.tif", 255)
    before, after = psnr(drawn.cloudy, clear), psnr(found["cloudy"], clear)
    print(f"GeoEye-1: {before:.2f} to {after:.2f} dB; without cloud {psnr(found['clear'], clear):.1f} dB")
    assert after > before + 6
    assert psnr(found["clear"], clear) > 36


EVEN = VeilRecipe(thickness=(1.2, 1.2), uneven=(0.1, 0.1), light=(0.6, 0.6), fine=0, blur=(0, 0.01))


def test_an_even_veil_over_a_whole_scene_of_16_bits_is_lifted(tmp_path):
    """By its quantiles alone the veil would be stretched away, and what is under it be as it was."""
    path = SAMPLES / "rotterdam_clear.tif"
    with rasterio.open(path) as source:
        clear, profile = source.read().astype(np.float32), source.profile
    white = 1.6 * float(np.percentile(clear, 99.5))
    below = 2 * clear / white - 1
    above = veiled(below, ("blue", "green", "red", "nir"), np.random.default_rng(5), EVEN).image
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as target:
        target.write(np.clip(np.rint((above + 1) * white / 2), 1, 65535).astype(np.uint16))
        target.descriptions = ("blue", "green", "red", "nir")
    process_scene(tmp_path / "scene.tif", tmp_path / "out.tif", model="default")
    before, after = psnr(above, below), psnr(read(tmp_path / "out.tif", white), below)
    print(f"Rotterdam under a veil: {before:.2f} to {after:.2f} dB")
    assert after > before + 2
