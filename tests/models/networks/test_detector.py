"""The cloud detector: the network, its labels, its training, its threshold, its place in a model file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from pair_cases import read_png, save_png, smooth_ground
from PIL import Image

from decr_scene.models.checkpoints.model_file import (
    ModelConfig,
    build_modules,
    read_model_file,
    save_model_file,
)
from decr_scene.models.clouds.simulate import CLOUD, SHADOW, CloudRecipe, SimulatedCloud
from decr_scene.models.clouds.veils import VeilRecipe
from decr_scene.models.data.config import DataConfig
from decr_scene.models.data.loading import load_source
from decr_scene.models.data.source import PairSource
from decr_scene.models.errors import CheckpointError, TrainingError
from decr_scene.models.model import load_detector, load_model
from decr_scene.models.networks.detector import (
    REACH,
    SPECK,
    CloudDetector,
    DetectorConfig,
    build_detector,
    reduced_image,
    without_specks,
)
from decr_scene.models.networks.noise_network import NetworkConfig
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.models.networks.unet import UNetConfig
from decr_scene.models.release.calibration import CALIBRATION, Scores, calibrate, read_calibration
from decr_scene.models.release.export import with_detector
from decr_scene.models.training.config import config_from_table
from decr_scene.models.training.labels import labelled, mask_labels, pair_labels, simulated_labels
from decr_scene.models.training.loop import CHECKPOINT, Report, Trainer
from decr_scene.models.training.weights import average_runs, averaged_weights

UNET = UNetConfig(channels=8, multipliers=(1,), attention_factors=(), heads=1, scale_shift=False)
CONFIG = ModelConfig(
    name="tiny",
    bands=("red", "green", "blue"),
    network=NetworkConfig(bands=3, noise=UNET, weight=UNET),
    reference=ReferenceConfig(bands=3, width=8, multipliers=(1,), blocks=1, middle_blocks=1),
)
SMALL = DetectorConfig(bands=3, widths=(8, 12), factor=2)
RUN = {
    "stage": "detector",
    "bands": ["red", "green", "blue"],
    "steps": 6,
    "batch": 4,
    "crop": 24,
    "warmup": 2,
    "checkpoint_every": 3,
    "detector": {"widths": [8, 12], "factor": 2},
    "data": [{"clear": "clear", "simulate": 1.0, "holdout": [["3", "4"]]}],
}


def drawn(config: DetectorConfig, seed: int = 0) -> CloudDetector:
    """A network whose norms do something."""
    torch.manual_seed(seed)
    detector = build_detector(config)
    for _ in range(3):
        detector(torch.rand(4, config.bands, 32, 32) * 2 - 1)
    return detector.eval()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Dark, smooth ground."""
    rng = np.random.default_rng(0)
    for number in range(5):
        save_png(tmp_path / "clear" / f"{number}.png", smooth_ground(rng, 6, 48, (10, 60)))
    return tmp_path


def train(
    root: Path, folder: Path, report: Report = lambda step, figures: None, **changes: object
) -> Trainer:
    config = config_from_table({**RUN, **changes})
    trainer = Trainer.start(config, folder)
    sources = [labelled(load_source(part, root, read_png, held_out="without")) for part in config.data]
    trainer.run(sources, [], report)
    return trainer


@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (64, 41)])
def test_any_size_gets_two_probabilities_a_pixel(shape: tuple[int, int]) -> None:
    found = drawn(SMALL).probability(torch.rand(2, 3, *shape))
    assert found.shape == (2, 2, *shape)
    assert found.min() >= 0
    assert found.max() <= 1


def test_no_answer_depends_on_pixels_out_of_reach() -> None:
    detector = drawn(DetectorConfig(bands=2))
    image = torch.rand(1, 2, 200, 200) * 2 - 1
    other = image.clone()
    other[..., 150:, :] = 1
    before, after = detector.probability(image), detector.probability(other)
    torch.testing.assert_close(before[..., : 150 - REACH, :], after[..., : 150 - REACH, :], atol=1e-6, rtol=0)
    assert not torch.allclose(before[..., 150 - REACH :, :], after[..., 150 - REACH :, :], atol=1e-3)


def test_specks_go_and_clouds_keep_every_pixel() -> None:
    cloud = torch.zeros(1, 1, 40, 40)
    cloud[..., 10 : 10 + SPECK, 20 : 20 + SPECK] = 0.9  # just large enough
    cloud[..., :SPECK, 30:] = 0.6  # at the border
    cloud[..., 35:, :SPECK] = 0.7  # in a corner
    specks = cloud.clone()
    specks[..., 30, 30] = specks[..., 20:24, 5:9] = specks[..., 28, :] = 1.0
    specks[..., 12, 22] = 0.9
    torch.testing.assert_close(without_specks(specks), cloud)


def test_reduction_is_the_mean_of_blocks_and_of_what_is_left_at_the_border() -> None:
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    torch.testing.assert_close(reduced_image(image, 2)[0, 0], torch.tensor([[3.0, 5, 6.5], [10.5, 12.5, 14]]))


@pytest.mark.parametrize("change", [{"widths": ()}, {"threshold": 1.0}, {"factor": 0}, {"bands": 0}])
def test_a_detector_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a detector needs"):
        replace(SMALL, **change)


def test_simulated_cloud_is_labelled_where_it_is_seen_and_nobody_is_asked_about_its_rim() -> None:
    clear = np.zeros((1, 1, 5), np.float32)
    cloud = SimulatedCloud(
        cloudy=clear + np.array([0, 0.8, -0.3, 0.05, 0.001], np.float32),
        opacity=np.array([[0, 0.9, 0, 0.07, 0.2]], np.float32),
        shadow=np.array([[0, 0, 0.5, 0, 0]], np.float32),
        mask=np.array([[0, CLOUD, SHADOW, 0, 3]], np.uint8),
    )
    restore, bright, counts = simulated_labels(cloud, clear)[:, 0]
    assert restore.tolist() == [0, 1, 1, 0, 0]
    assert bright.tolist() == [0, 1, 0, 0, 0]
    assert counts.tolist() == [1, 1, 1, 0, 0]  # the rim, and cloud that nobody can see


def test_a_pair_is_labelled_by_what_differs() -> None:
    matched = np.zeros((3, 8, 80), np.float32)
    cloudy = matched.copy()
    cloudy[:, :, 20:40] += 30 / 127.5
    cloudy[:, :, 40:60] -= 30 / 127.5
    cloudy[:, :, 60:] += 7 / 127.5
    restore, bright, counts = pair_labels(cloudy, matched, smoothing=1.0)[:, 4]
    assert restore[[5, 30, 50, 75]].tolist() == [0, 1, 1, 0]
    assert bright[[5, 30, 50, 75]].tolist() == [0, 1, 0, 0]
    assert counts[[5, 30, 50, 75]].tolist() == [1, 1, 1, 0]


def test_crops_are_labelled_and_a_function_of_the_generator(root: Path) -> None:
    source = labelled(load_source(DataConfig("clear", simulate=1.0), root, read_png))
    bands = ("red", "green", "blue")
    image, labels, _ = source.crop(np.random.default_rng(3), 24, bands)
    again = source.crop(np.random.default_rng(3), 24, bands)
    assert image.shape == labels.shape == (3, 24, 24)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert set(np.unique(labels)) <= {0.0, 1.0}
    assert np.abs(image).max() <= 1


def test_a_veil_is_cloud_where_it_hides_the_ground(root: Path) -> None:
    def shares(thickness: float) -> list[float]:
        veils = VeilRecipe(thickness=(thickness, thickness), uneven=(0.0, 0.0), fine=0.0)
        config = DataConfig(
            "clear", simulate=1.0, veil=1.0, veil_clouds=0.0, veils=veils, veil_labels=(0.6, 0.85)
        )
        source = labelled(load_source(config, root, read_png))
        _, labels, _ = source.crop(np.random.default_rng(0), 24, ("red", "green", "blue"))
        return [float(label.mean()) for label in labels]

    assert shares(2.3) == [1, 1, 1]  # opacity .90
    assert shares(1.3) == [0, 0, 0]  # .73: nobody can say
    assert shares(0.4) == [0, 0, 1]  # .33


def test_cloud_need_not_be_grey_in_pictures_that_are_stretched(root: Path) -> None:
    def colours(stretch: float) -> float:
        config = DataConfig("clear", simulate=1.0, stretch=stretch, clouds=CloudRecipe(coverage=(1, 1)))
        source = labelled(load_source(config, root, read_png))
        crops = [source.crop(np.random.default_rng(n), 24, ("red", "green", "nir"))[0] for n in range(30)]
        return float(np.mean([crop.mean((1, 2)).std() for crop in crops]))

    assert colours(0.9) > 2 * colours(0.0)


def test_masks_label_their_images() -> None:
    cover = np.zeros((2, 4, 40), np.float32)
    cover[0, :, :10], cover[1, :, 10:20], cover[0, :, 20] = 1, 1, 0.4
    image = np.linspace(-1, 1, 40, dtype=np.float32)[None, None].repeat(4, 1).repeat(3, 0)
    restore, cloud, counts = mask_labels(image, cover)[:, 0]
    assert restore.sum() == 20
    assert cloud.sum() == 10
    assert counts.sum() == 39  # but for the pixel that is partly cloud
    cover[1] = 0
    restore, cloud, counts = mask_labels(image, cover)[:, 0]
    assert restore.sum() == cloud.sum() == 10
    dark = np.flatnonzero(counts == 0)
    assert len(dark) == 8  # of 29 clear ones a quarter, the darkest, and the partly cloudy one
    assert set(dark) <= {*range(10, 20), 20}


def test_images_with_masks_are_read_for_a_detector_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        save_png(tmp_path / "image" / f"{name}.png", smooth_ground(rng, 6, 48, (10, 60)))
        mask = np.zeros((48, 48, 3), np.uint8)
        mask[:, 24:] = [1, 1, 1] if name == "a" else [3, 3, 3]
        save_png(tmp_path / "mask" / f"{name}.png", mask)
    config = DataConfig(cloudy="image", masks="mask", scales=(1.0, 0.5))
    source = labelled(load_source(config, tmp_path, read_png, bands=3, crop=24))
    for seed in range(8):
        image, labels, _ = source.crop(np.random.default_rng(seed), 24, ("red", "green", "blue"))
        assert image.shape == labels.shape == (3, 24, 24)
        np.testing.assert_array_equal(labels[0], labels[1])
    with pytest.raises(ValueError, match="trains a \\[detector\\] of family unet, found 'cloudnet'"):
        config_from_table({**RUN, "detector": {"family": "cloudnet"}})
    with pytest.raises(ValueError, match="is of stage detector alone, this run is of reference: drop it"):
        config_from_table({**RUN, "stage": "reference"})
    other = {key: value for key, value in RUN.items() if key != "detector"} | {"stage": "reference"}
    with pytest.raises(ValueError, match="masks are for stage detector alone"):
        config_from_table({**other, "data": [{"cloudy": "image", "masks": "mask"}]})
    mask[:] = 9
    save_png(tmp_path / "mask" / "b.png", mask)
    with pytest.raises(TrainingError, match="values 9 to 9"):
        load_source(config, tmp_path, read_png)
    save_png(tmp_path / "mask" / "b.png", np.zeros((40, 48, 3)))
    with pytest.raises(TrainingError, match="its mask is"):
        load_source(config, tmp_path, read_png)


@pytest.mark.parametrize(
    ("name", "pixels", "told"),
    [
        ("b.jpg", np.zeros((48, 48), np.uint8), "JPEG changes the classes"),
        ("b.png", np.stack([np.ones((48, 48), np.uint8), *np.zeros((2, 48, 48), np.uint8)], 2), "one band"),
        ("b.tif", np.zeros((48, 48), np.float32), "whole numbers"),
    ],
)
def test_masks_that_are_none_are_refused(name: str, pixels: np.ndarray, told: str, tmp_path: Path) -> None:
    save_png(tmp_path / "image" / "b.png", smooth_ground(np.random.default_rng(0), 6, 48, (10, 60)))
    (tmp_path / "mask").mkdir()
    Image.fromarray(pixels).save(tmp_path / "mask" / name)
    with pytest.raises(TrainingError, match=told):
        load_source(DataConfig(cloudy="image", masks="mask"), tmp_path, read_png)


def test_a_mask_whose_clear_class_is_called_nodata_is_read_as_it_stands(tmp_path: Path) -> None:
    save_png(tmp_path / "image" / "b.png", smooth_ground(np.random.default_rng(0), 6, 48, (10, 60)))
    (tmp_path / "mask").mkdir()
    mask = np.zeros((48, 48), np.uint8)
    mask[:12], mask[40:] = 1, 2
    profile = {"driver": "GTiff", "height": 48, "width": 48, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(tmp_path / "mask" / "b.tif", "w", **profile) as target:
        target.write(mask, 1)
    cover = load_source(DataConfig(cloudy="image", masks="mask"), tmp_path, read_png).pairs[0][0].clear
    np.testing.assert_array_equal(cover, [mask == 1, mask == 2])


@pytest.mark.parametrize("wrong", [{"masks": "mask"}, {"masks": "mask", "cloudy": "a", "simulate": 1.0}])
def test_masks_without_their_images_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="masks are of the images"):
        DataConfig(**wrong)


def test_scores_are_shares_from_the_threshold_on() -> None:
    scores = Scores()
    probability = np.array([0.9, 0.6, 0.3, 0.7, 0.2, 0.1, 0.05, 1.0], np.float32)
    cloudy = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    scores.add(probability, cloudy, np.array([1, 1, 1, 1, 1, 1, 1, 0], bool))
    assert scores.recall(0.5) == pytest.approx(2 / 3)
    assert scores.false_alarms(0.5) == pytest.approx(1 / 4)
    assert scores.threshold(0.3) == pytest.approx(0.201)
    assert scores.false_alarms(scores.threshold(0.3)) <= 0.3
    assert scores.threshold(0) == pytest.approx(0.701)


def test_a_stopped_training_goes_on_to_the_same_weights(root: Path, tmp_path: Path) -> None:
    train(root, tmp_path / "whole")

    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(root, tmp_path / "parts", stop)
    train(root, tmp_path / "parts")
    whole, parts = (averaged_weights(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_mean_of_two_runs_keeps_the_counts_of_norms(root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        train(root, tmp_path / name, seed=seed)
    runs = [tmp_path / name / CHECKPOINT for name in ("a", "b")]
    average_runs(runs, tmp_path / "mean.pt")
    first, second, mean = map(averaged_weights, (*runs, tmp_path / "mean.pt"))
    kernel, count = "detector.leave.weight", "detector.enter.1.num_batches_tracked"
    torch.testing.assert_close(mean[kernel], (first[kernel] + second[kernel]) / 2)
    assert mean[count] == first[count]


@pytest.mark.slow
def test_a_trained_detector_tells_cloud_from_ground_it_has_not_seen(root: Path, tmp_path: Path) -> None:
    trainer = train(
        root, tmp_path / "run", steps=150, batch=8, learning_rate=5e-3, ema=0.95, checkpoint_every=150
    )
    held = labelled(load_source(trainer.config.data[0], root, read_png, held_out="only"))
    detector = trainer.ema["detector"].eval()
    assert isinstance(detector, CloudDetector)
    figures = calibrate(detector, {"simulated": [held]}, 24, trainer.config.bands, tmp_path / "run")
    assert figures["simulated_false_alarms"] <= 0.08
    assert figures["simulated_recall"] > 0.6
    config, told = read_calibration(tmp_path / "run")
    assert config == replace(trainer.config.detector, threshold=figures["threshold"])
    assert told == figures


@pytest.mark.parametrize(
    "change", [{"detector": {"bands": 4}}, {"validation": {"clear": "clear", "simulate": 1.0}}]
)
def test_a_detector_run_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\[detector\] table|\[validation\]"):
        config_from_table({**RUN, **change})
    with pytest.raises(ValueError, match=r"\[detector\] table"):
        config_from_table({name: value for name, value in RUN.items() if name != "detector"})


def test_a_detector_comes_into_an_old_model_file(root: Path, tmp_path: Path) -> None:
    save_model_file(tmp_path / "old.safetensors", CONFIG, build_modules(CONFIG).state_dict())
    assert load_detector(tmp_path / "old.safetensors") is None
    old = load_model(tmp_path / "old.safetensors", device="cpu")
    assert old.detector is None
    with pytest.raises(ValueError, match="no cloud detector"):
        old.detect(torch.zeros(1, 3, 8, 8))
    detector = train(root, tmp_path / "run").ema["detector"].eval()
    assert isinstance(detector, CloudDetector)
    with pytest.raises(TrainingError, match="finished detector run"):
        with_detector(CONFIG, {}, tmp_path / "run")
    calibrate(detector, {}, 24, (), tmp_path / "run")
    assert (tmp_path / "run" / CALIBRATION).exists()
    model_file = read_model_file(tmp_path / "old.safetensors")
    save_model_file(tmp_path / "new.safetensors", *with_detector(*model_file, tmp_path / "run"))

    model, alone = (
        load_model(tmp_path / "new.safetensors", device="cpu"),
        load_detector(tmp_path / "new.safetensors", device="cpu"),
    )
    cloudy = torch.rand(2, 3, 31, 18) * 2 - 1
    found = model.detect(cloudy)
    assert found.shape == (2, 2, 16, 9)
    assert alone is not None
    torch.testing.assert_close(alone.probability(reduced_image(cloudy, 2)), found, atol=1e-5, rtol=0)
    torch.testing.assert_close(detector.probability(reduced_image(cloudy, 2)), found, atol=0.02, rtol=0)


def test_a_detector_that_does_not_fit_is_refused_at_load(tmp_path: Path) -> None:
    config = replace(CONFIG, detector=SMALL)
    own = build_modules(config).state_dict()
    save_model_file(tmp_path / "m", config, own)
    assert read_model_file(tmp_path / "m")[0].detector == SMALL
    del own["detector.leave.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: detector\.leave\.bias"):
        save_model_file(tmp_path / "m", config, own)


def test_a_source_with_labels_holds_the_same_images(root: Path) -> None:
    source = load_source(DataConfig("clear", simulate=1.0), root, read_png)
    assert isinstance(labelled(source), PairSource)
    assert labelled(source).pairs is source.pairs


@pytest.mark.parametrize("shape", [(64, 64), (97, 130), (256, 224)])
def test_the_number_of_threads_changes_no_bit_of_what_is_detected(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = CloudDetector(DetectorConfig(bands=4, widths=(32, 64, 112, 160))).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    image, before, found = torch.rand(1, 4, *shape) * 2 - 1, torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(network.probability(image))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_the_answers_are_those_of_the_last_convolution() -> None:
    network, seen = CloudDetector(SMALL).eval(), torch.rand(2, 8, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(network._logits(seen), network.leave(seen))
        assert network._logits(seen).shape == (2, 2, 20, 24)
