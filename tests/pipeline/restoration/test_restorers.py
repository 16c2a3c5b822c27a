"""What runs a model: in a memory that may be too small, in batches of one shape, on one kind of device."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from fault_cases import Smooth, assert_same_file
from model_cases import tiny_model
from raster_cases import plain, write
from sample_cases import pixels
from test_run import assert_same_pixels

from decr_scene.models.devices import Computing, pick_precision
from decr_scene.pipeline import process_scene
from decr_scene.pipeline.errors import ClusterError, ResumeError
from decr_scene.pipeline.planning.options import Options
from decr_scene.pipeline.planning.plan_scene import plan_scene
from decr_scene.pipeline.planning.restorer import spec_of
from decr_scene.pipeline.planning.resume_guard import run_guard
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration import open_restorers
from decr_scene.pipeline.restoration.agreement import Agreement
from decr_scene.pipeline.restoration.memory import in_pieces, is_out_of_memory, run_in_halves
from decr_scene.pipeline.restoration.restorers import Diffusion, describe
from decr_scene.pipeline.tiling.grid import Span
from decr_scene.pipeline.tiling.noise import TileNoise
from decr_scene.pipeline.writing.journal import Journal


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")
    return spec_of(Options(model=str(model), device="cpu"))[0]


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).uniform(-1, 1, (5, 3, 64, 64)).astype(np.float32)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_does_not_suffice_is_told_in_many_ways(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


class Small:
    """Has memory for so many images."""

    def __init__(self, most):
        self.most, self.sizes, self.seen = most, {}, []

    def guess(self, images, context=None):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise RuntimeError("CUDNN_STATUS_ALLOC_FAILED")
        return images + 1


def test_the_size_that_went_is_kept():
    model, images = Small(2), np.arange(8.0, dtype=np.float32).reshape(8, 1, 1, 1)
    for _ in range(2):
        np.testing.assert_array_equal(run_in_halves(model.guess, images, None), images + 1)
    assert model.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_a_single_image_that_is_too_large_is_an_error():
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        run_in_halves(Small(0).guess, np.zeros((4, 1, 1, 1), np.float32))


def test_another_error_is_not_tried_again():
    seen = []

    def broken(part, size):
        seen.append(size)
        raise RuntimeError("illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        in_pieces(broken, 8, 8, {})
    assert seen == [8]


def on_a_gpu(monkeypatch, spec, most=99):
    """A model that takes itself to be on a GPU with memory for so many images, and what it sees at a time."""
    model, seen = Diffusion(spec), []
    monkeypatch.setattr(Diffusion, "_on_gpu", True)
    reference, network = model.model.reference, model.model.network

    def guess(images, context=None):
        seen.append(len(images))
        if len(images) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return reference(images, context)

    def noise(x_t, *images):
        seen.append(len(x_t))
        if len(x_t) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return network(x_t, *images)

    monkeypatch.setattr(model.model, "reference", guess)
    monkeypatch.setattr(model.model, "network", noise)
    return model, seen


def test_a_gpu_sees_batches_of_one_shape(monkeypatch, spec, batch):
    expected = Diffusion(spec).guess(batch)
    model, seen = on_a_gpu(monkeypatch, replace(spec, at_once=4))
    np.testing.assert_allclose(model.guess(batch), expected, atol=1e-5)
    assert seen == [4, 4]


def test_a_gpu_that_is_too_small_keeps_to_the_shape_that_went(monkeypatch, spec, batch):
    expected = Diffusion(spec).guess(batch)
    model, seen = on_a_gpu(monkeypatch, replace(spec, at_once=4), most=2)
    for _ in range(2):
        np.testing.assert_allclose(model.guess(batch), expected, atol=1e-5)
    assert seen == [4, 2, 2, 2, 2, 2, 2]


def test_tiles_that_are_sampled_together_keep_to_the_shape_that_went(monkeypatch, spec, batch):
    images = (batch, batch[::-1].copy(), batch * 0.5, lambda estimates: estimates)
    expected = Diffusion(spec).restore(*images)
    model, seen = on_a_gpu(monkeypatch, replace(spec, at_once=4), most=2)
    for _ in range(2):
        np.testing.assert_allclose(model.restore(*images), expected, atol=1e-4)
    assert seen == [4] + [2] * 12


@pytest.mark.parametrize("together", [(), (lambda estimates: estimates,)])
def test_a_gpu_draws_its_noise_itself_and_the_same(monkeypatch, spec, batch, together):
    noise = TileNoise(5, 3, [Span(40, 100 * number, 64, 64) for number in range(5)])
    expected = Diffusion(spec).restore(batch, noise.drawn(), batch * 0.5, *together)
    assert not Diffusion(spec).draws_noise
    model, _ = on_a_gpu(monkeypatch, replace(spec, at_once=3))
    monkeypatch.setattr(TileNoise, "drawn", None)
    np.testing.assert_allclose(model.restore(batch, noise, batch * 0.5, *together), expected, atol=1e-4)


@pytest.fixture
def opened_anew():
    """No model that was opened before, or is opened here, is met elsewhere."""
    open_restorers._open_model.cache_clear()
    yield
    open_restorers._open_model.cache_clear()


def test_a_scene_is_the_same_from_a_model_that_draws_its_noise(monkeypatch, tmp_path, opened_anew):
    model = tiny_model(tmp_path / "tiny.safetensors")
    scene = plain(tmp_path / "scene.tif", (300, 700), 3)
    options = {"model": model, "mask": "none", "batch_size": 3, "device": "cpu"}
    process_scene(scene, tmp_path / "here.tif", **options)
    init = Diffusion.__init__

    def drawing(self, spec):
        init(self, spec)
        self.draws_noise = True

    monkeypatch.setattr(Diffusion, "__init__", drawing)
    monkeypatch.setattr(TileNoise, "drawn", None)
    open_restorers._open_model.cache_clear()
    process_scene(scene, tmp_path / "there.tif", **options)
    assert_same_file(tmp_path / "here.tif", tmp_path / "there.tif")


def test_a_callable_that_needs_no_noise_is_given_none(tmp_path):
    scene = plain(tmp_path / "scene.tif", (300, 500), 1)

    def darker(tiles, noise):
        assert noise is None
        return np.maximum(tiles - 0.1, -1)

    darker.needs_noise = False
    process_scene(scene, tmp_path / "without.tif", restorer=darker, scale=(0, 6000))
    process_scene(
        scene,
        tmp_path / "with.tif",
        restorer=lambda tiles, noise: np.maximum(tiles - 0.1, -1),
        scale=(0, 6000),
    )
    assert_same_pixels(tmp_path / "without.tif", tmp_path / "with.tif")


def test_what_sampling_adds_is_as_strong_as_asked(tmp_path, spec, batch):
    assert Diffusion(spec).may_change(batch, batch).all()
    assert not Diffusion(replace(spec, gain=0.0)).may_change(batch, batch).any(), "nothing is sampled in vain"
    model = tiny_model(tmp_path / "tiny.safetensors")
    scene = plain(tmp_path / "scene.tif", (300, 300), 3)
    found = {}
    for name, own in (
        ("guess", {"weight_floor": 1}),
        ("none", {"gain": 0}),
        ("one", {}),
        ("half", {"gain": 0.5}),
    ):
        report = process_scene(
            scene, tmp_path / f"{name}.tif", model=model, mask="none", device="cpu", scale=(0, 6000), **own
        )
        found[name] = pixels(tmp_path / f"{name}.tif").astype(float)
        assert report.model["gain"] == own.get("gain", 1)
    np.testing.assert_array_equal(found["none"], found["guess"])
    assert np.abs(found["one"] - found["guess"]).max() > 20
    low, high = np.minimum(found["one"], found["guess"]), np.maximum(found["one"], found["guess"])
    assert (found["half"] >= low - 1).all()
    assert (found["half"] <= high + 1).all()
    assert (np.abs(found["half"] - low) > 20).any()
    assert (np.abs(found["half"] - high) > 20).any()
    with RasterioScene.open(scene) as opened:
        plain_guard, own, stronger = (
            run_guard(opened, plan_scene(opened, Options(model=str(model), gain=gain)), "deflate", 512)
            for gain in (None, 1, 2.5)
        )
    assert own == plain_guard, "what earlier versions have begun is gone on with"
    assert stronger.keys() - plain_guard.keys() == {"gain"}


def test_another_device_than_the_run_began_on_is_refused(spec):
    spec = replace(spec, precision="fp32")
    other = Computing("cuda", "H100", "bf16", "2.13.0")
    with pytest.raises(ClusterError, match=r"computes on cpu in fp32 .* the run on cuda \(H100\) in bf16"):
        Diffusion(replace(spec, computing=other))


def test_the_report_tells_how_it_was_computed(spec):
    found = describe(spec)
    told = [found[name] for name in ("device", "device_name", "precision", "torch")]
    computing = spec.computing
    assert told == ["cpu", computing.name, computing.precision, torch.__version__.partition("+")[0]]
    assert computing.precision == pick_precision("auto", torch.device("cpu"))
    assert (computing.name is None) == (computing.precision == "fp32")


def test_only_a_run_that_computes_in_the_same_way_goes_on(spec, tmp_path):
    path = plain(tmp_path / "scene.tif", (60, 50), 3, "uint8")
    with RasterioScene.open(path, "red,green,blue") as scene:
        planned = plan_scene(scene, Options(model=spec.name, bands="red,green,blue", device="cpu"))
        guard = run_guard(scene, planned, "deflate", 512)
        gpu = replace(planned.plan.spec, computing=Computing("cuda", "H100", "bf16", "2.13.0"))
        other = run_guard(scene, replace(planned, plan=replace(planned.plan, spec=gpu)), "deflate", 512)
    Journal(tmp_path / "new", guard).close()
    with pytest.raises(ResumeError, match="computing differ"):
        Journal(tmp_path / "new", other)


@pytest.mark.parametrize(("precision", "goes_on"), [("auto", True), ("fp32", True), ("bf16", False)])
def test_what_a_version_left_that_told_no_device_counts_as_a_cpu(precision, goes_on, tmp_path):
    told = {"device": "cpu", "device_name": None, "precision": "fp32", "torch": "2.13.0"}
    guard, window = {"seed": 1, "precision": precision}, {"window": [0, 0, 5, 5], "crc": 7, "statistics": []}
    (tmp_path / "old").write_text("".join(json.dumps(line) + "\n" for line in (guard, window)))
    if goes_on:
        journal = Journal(tmp_path / "old", {"seed": 1, "computing": told})
        assert list(journal.finished) == [(0, 0, 5, 5)]
        journal.close()
    for other in ({**told, "device": "cuda"}, *([] if goes_on else [told])):
        with pytest.raises(ResumeError, match="computing differ"):
            Journal(tmp_path / "old", {"seed": 1, "computing": other})
    Journal(tmp_path / "plain", {"precision": precision}).close()
    Journal(tmp_path / "plain", {"computing": None}).close()


def test_tiles_agree_on_a_gpu_as_they_do_on_a_cpu(spec, tmp_path):
    path = plain(tmp_path / "scene.tif", (300, 470), 3, "uint8")
    with RasterioScene.open(path, "red,green,blue") as scene:
        plan = plan_scene(scene, Options(model=spec.name, bands="red,green,blue", device="cpu")).plan
    tiles = list(plan.grid)[:-1]
    agree = Agreement(plan, tiles)
    images = np.random.default_rng(1).uniform(-1, 1, (len(tiles), 3, 256, 256)).astype(np.float32)
    expected = agree(images)
    assert not np.array_equal(expected, images)
    np.testing.assert_allclose(agree.on_device(torch.from_numpy(images)).numpy(), expected, atol=1e-6)


def test_a_gpu_that_is_too_small_does_with_smaller_batches(long_scene, whole, log, tmp_path):
    sizes = []

    class Small(Smooth):
        def __call__(self, tiles, noise):
            sizes.append(len(tiles))
            if len(tiles) > 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return super().__call__(tiles, noise)

    out = tmp_path / "clean.tif"
    process_scene(long_scene, out, restorer=Small(log), blocksize=128, batch_size=11)
    assert sizes[:3] == [11, 6, 3]
    assert max(sizes[3:]) == 3, "what suffices is remembered"
    assert_same_file(out, whole)


def test_tiles_in_which_the_ground_is_seen_are_not_sampled(monkeypatch, tmp_path):
    """Whose first guess has all the weight: it is the answer, and the file is that of sampling all."""
    model = tiny_model(tmp_path / "tiny.safetensors", covered=(0.3, 0.6), texture=2.0)
    ground = np.full((3, 256, 700), 60, np.uint8) + np.arange(700, dtype=np.uint8) % 50
    ground[:, :200, :100] = 250  # cloud, in the first of four tiles
    scene, seen = write(tmp_path / "scene.tif", ground), []
    sample = Diffusion.restore

    def guess(self, tiles, context=None, norm_side=None):
        return np.where(tiles > 0.8, tiles - 1.5, tiles - np.float32(0.1))

    def counted(self, tiles, *others):
        seen.append(len(tiles))
        return sample(self, tiles, *others)

    monkeypatch.setattr(Diffusion, "guess", guess)
    monkeypatch.setattr(Diffusion, "restore", counted)
    options = {"model": str(model), "mask": "none", "device": "cpu"}
    process_scene(scene, tmp_path / "some.tif", **options)
    assert sum(seen) == 1
    monkeypatch.setattr(Diffusion, "may_change", lambda self, tiles, field: np.ones(len(tiles), bool))
    process_scene(scene, tmp_path / "all.tif", **options)
    assert sum(seen) == 1 + 4
    assert_same_file(tmp_path / "some.tif", tmp_path / "all.tif")


def test_tiles_of_one_picture_are_all_sampled(monkeypatch, tmp_path):
    model = tiny_model(tmp_path / "tiny.safetensors", covered=(0.3, 0.6), texture=2.0)
    scene = write(tmp_path / "scene.tif", np.full((3, 256, 448), 90, np.uint8))
    asked = []
    monkeypatch.setattr(Diffusion, "may_change", lambda self, *images: asked.append(1))
    process_scene(scene, tmp_path / "out.tif", model=str(model), mask="none", device="cpu", blend="joint")
    assert not asked


def test_a_cpu_samples_small_networks_side_by_side_to_the_same_bits(monkeypatch, spec, batch):
    images, at_work, most = (batch, batch[::-1].copy(), batch * 0.5), [], []
    expected = Diffusion(spec).restore(*images)
    model = Diffusion(replace(spec, side_by_side=True))
    sample, before = model.model.sample, torch.get_num_threads()

    def watched(*args, **options):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.05)
        answer = sample(*args, **options)
        at_work.pop()
        return answer

    monkeypatch.setattr(model.model, "sample", watched)
    torch.set_num_threads(3)
    try:
        np.testing.assert_array_equal(model.restore(*images), expected)
    finally:
        torch.set_num_threads(before)
    assert 2 <= max(most) <= 3


def test_a_batch_is_as_large_as_what_is_computed_at_the_same_time(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    model = tiny_model(tmp_path / "tiny.safetensors")
    with RasterioScene.open(plain(tmp_path / "scene.tif", (900, 900), 3)) as scene:
        planned = plan_scene(
            scene, Options(model=str(model), bands="red,green,blue", mask="none", device="cpu")
        )
    assert [planned.batches(None, models).largest for models in (1, 2)] == [1, 1]
    small = replace(planned, plan=replace(planned.plan, spec=replace(planned.plan.spec, side_by_side=True)))
    assert [small.batches(None, models).largest for models in (1, 2, 9)] == [6, 3, 1]
    assert small.batches(4).largest == 4
    spec = replace(small.plan.spec, computing=None)
    elsewhere = replace(small, plan=replace(small.plan, spec=spec))
    assert elsewhere.batches(None).largest == 1  # on a cluster, whose cores are not counted


def test_only_networks_of_ours_are_computed_side_by_side(spec):
    assert not spec.side_by_side
    assert spec_of(Options(model="default", device="cpu"))[0].side_by_side
    assert not spec_of(Options(model="identity"))[0].side_by_side
