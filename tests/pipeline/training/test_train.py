"""Training from the command line to the run folder: killed, shared by processes, on data that are refused."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from pair_cases import save_png
from PIL import Image
from run_cases import command, toml
from torch._dynamo.utils import counters

from decr_scene.models.bundled import find_model
from decr_scene.models.checkpoints.model_file import read_model_file
from decr_scene.models.data.config import DataConfig
from decr_scene.models.errors import TrainingError, UnknownModelError
from decr_scene.models.networks.detector import DetectorConfig, build_detector
from decr_scene.models.training.config import read_config, read_texts
from decr_scene.models.training.logs import METRICS
from decr_scene.models.training.loop import CHECKPOINT
from decr_scene.models.training.weights import averaged_weights
from decr_scene.pipeline.commands.main import main
from decr_scene.pipeline.training import stage
from decr_scene.pipeline.training.stage import train


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*args, program=("-m", "decr_scene.pipeline")):
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*args):
    """Run it to its end, on as many threads as `start`: sums in another order are others in the last bit."""
    process = start(*args)
    _, told = process.communicate()
    assert process.returncode == 0, told


def same_weights(one, other):
    first, second = (averaged_weights(folder / CHECKPOINT) for folder in (one, other))
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights_and_table(data, tmp_path):
    config = toml(tmp_path, steps=150, every=1)
    finish(*command(config, data, tmp_path / "whole"))
    killed, rng = tmp_path / "killed", random.Random(time.time_ns())
    kills = 0
    for _ in range(4):
        before = (killed / CHECKPOINT).stat().st_mtime_ns if (killed / CHECKPOINT).exists() else 0
        process = start(*command(config, data, killed))
        while process.poll() is None and not (
            (killed / CHECKPOINT).exists() and (killed / CHECKPOINT).stat().st_mtime_ns > before
        ):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills >= 2
    finish(*command(config, data, killed))
    assert same_weights(tmp_path / "whole", killed)
    assert (killed / METRICS).read_text() == (tmp_path / "whole" / METRICS).read_text()


def test_accumulated_batches_are_one_larger_batch(data, tmp_path):
    large, small = toml(tmp_path, batch=4), toml(tmp_path, batch=2, accumulate=2)
    for config in (large, small):
        train(read_config(config), data, tmp_path / config.stem, quiet=True)
    assert_close(tmp_path / large.stem, tmp_path / small.stem)
    train(read_config(toml(tmp_path, batch=2)), data, tmp_path / "half", quiet=True)
    assert difference(tmp_path / large.stem, tmp_path / "half") > 1e-4


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch_and_go_on_after_a_stop(data, tmp_path):
    train(read_config(toml(tmp_path, batch=4)), data, tmp_path / "one", quiet=True)
    config, torchrun = toml(tmp_path, batch=2), ("-m", "torch.distributed.run", "--nproc-per-node", 2)
    program = [*torchrun, "--master-port", 29000 + os.getpid() % 1000, "-m", "decr_scene.pipeline"]
    for _ in range(2):  # the second one finds the checkpoint and has nothing left to do
        process = start(*program, *command(config, data, tmp_path / "two"), program=())
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert_close(tmp_path / "one", tmp_path / "two")
    with pytest.raises(TrainingError, match="a run of 2 processes, these are 1"):
        train(read_config(config), data, tmp_path / "two", quiet=True)


def assert_close(one, other):
    assert difference(one, other) < 1e-5
    first, second = table(one), table(other)
    assert [row["step"] for row in first] == [row["step"] for row in second]
    losses = [[float(row["charbonnier"]) for row in rows] for rows in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def difference(one, other):
    first, second = (averaged_weights(folder / CHECKPOINT) for folder in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def table(folder):
    return list(csv.DictReader((folder / METRICS).read_text().splitlines()))


@pytest.mark.parametrize("by_name", [True, False])
def test_a_bundled_model_is_trained_further(by_name, data, tmp_path):
    before, weights = read_model_file(find_model("rice2"))
    config = read_config(toml(tmp_path, steps=1))
    config = replace(config, reference=before.reference, learning_rate=1e-9)
    model = Path("rice2") if by_name else find_model("rice2")
    train(config, data, tmp_path / "run", (model,), quiet=True)
    after = averaged_weights(tmp_path / "run" / CHECKPOINT)
    own = {name for name in weights if name.startswith("reference.")}
    assert after.keys() == own
    for name in own:
        torch.testing.assert_close(after[name], weights[name].float(), rtol=0, atol=1e-6)


def test_what_is_neither_a_run_nor_a_model_is_named(data, tmp_path):
    config = read_config(toml(tmp_path))
    with pytest.raises(UnknownModelError, match=r"nothing-here.*bundled models are default, rgb, rice2"):
        train(config, data, tmp_path / "run", (Path("nothing-here"),), quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_mean_of_two_runs_is_what_a_third_begins_with(data, tmp_path):
    config = read_config(toml(tmp_path, steps=2))
    for seed in (1, 2):
        train(replace(config, seed=seed), data, tmp_path / str(seed), quiet=True)
    mean = tmp_path / "mean.pt"
    call = ["models", "average", tmp_path / "1", tmp_path / "2", "--out", mean]
    told = CliRunner().invoke(main, [str(part) for part in call])
    assert told.exit_code == 0, told.output
    first, second = (averaged_weights(tmp_path / seed / CHECKPOINT) for seed in ("1", "2"))
    train(replace(config, learning_rate=1e-9, steps=1), data, tmp_path / "3", (mean,), quiet=True)
    third = averaged_weights(tmp_path / "3" / CHECKPOINT)
    assert third.keys() == first.keys()
    for name, weight in third.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2, rtol=0, atol=1e-6)
    again = CliRunner().invoke(main, [str(part) for part in call])
    assert again.exit_code == 1
    assert "exists" in again.output


def test_weights_of_other_bands_are_told_of(data, tmp_path):
    path = toml(tmp_path, steps=1)
    train(read_config(path), data, tmp_path / "rgb", quiet=True)
    path.write_text(path.read_text().replace('"red", "green", "blue"', '"blue", "green", "red"'))
    call = ["train", "reference", "--config", path, "--data", data, "--init", tmp_path / "rgb", "--out"]
    for out, told in (("rgb-again", True), ("rgb-again", False)):  # once it has begun, its own weights count
        done = CliRunner().invoke(main, [*map(str, call), str(tmp_path / out), "--quiet"])
        assert done.exit_code == 0, done.output
        said = "was trained on red, green, blue, this run has blue, green, red"
        assert (said in " ".join(done.output.split())) == told, done.output
        assert "it goes on from its own weights" not in " ".join(done.output.split())
    for other, told in (("rgb-again", True), ("gone", False)):
        call[call.index("--init") + 1] = tmp_path / other
        done = CliRunner().invoke(main, [*map(str, call), str(tmp_path / "rgb-again"), "--quiet"])
        assert done.exit_code == 0, done.output
        assert ("it goes on from its own weights" in " ".join(done.output.split())) == told


def test_an_image_of_nodata_alone_is_refused(data, tmp_path):
    file = next((data / "label").glob("*"))
    with rasterio.open(file) as image:
        profile = image.profile | {"driver": "GTiff", "nodata": 0}
    with rasterio.open(file.with_suffix(".tif"), "w", **profile):
        pass
    file.unlink()
    with pytest.raises(TrainingError, match=f"{file.stem}.*all of it is nodata"):
        train(read_config(toml(tmp_path, steps=1)), data, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (("small",), "two runs at least, got 1"),
        (("small", "rice2"), "rice2.* holds other networks than .*small"),
    ],
)
def test_runs_that_have_no_mean_are_refused(runs, said, data, tmp_path):
    train(read_config(toml(tmp_path, steps=1)), data, tmp_path / "small", quiet=True)
    places = [tmp_path / run if run == "small" else run for run in runs]
    call = ["models", "average", *places, "--out", tmp_path / "mean.pt"]
    told = CliRunner().invoke(main, [str(part) for part in call])
    assert told.exit_code == 1
    assert re.search(said, told.output), told.output
    assert not (tmp_path / "mean.pt").exists()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(data, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("NO G++ HERE: torch compiles with it")
    config = read_config(toml(tmp_path, steps=3))
    config = replace(config, reference=replace(config.reference, smooth=True))
    counters.clear()
    for name, compiled in (("plain", False), ("compiled", True)):
        train(replace(config, compiled=compiled), data, tmp_path / name, quiet=True)
        assert bool(counters["stats"]["unique_graphs"]) == compiled
    plain, compiled = (averaged_weights(tmp_path / name / CHECKPOINT) for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-3, atol=2e-4)


def test_a_run_folder_tells_what_the_run_was_made_of(data, tmp_path):
    config = toml(tmp_path)
    result = CliRunner().invoke(main, [str(a) for a in command(config, data, tmp_path / "run")])
    assert result.exit_code == 0, result.output
    run = tmp_path / "run"
    assert (run / "config.toml").read_text() == config.read_text()
    told = json.loads((run / "run.json").read_text())
    assert told["versions"]["torch"] == torch.__version__
    assert told["data"]["files"] == 12
    rows = list(csv.DictReader((run / "data.csv").read_text().splitlines()))
    assert [r["name"] for r in rows] == [f"{kind}/{i}.png" for kind in ("cloud", "label") for i in range(6)]
    assert all(len(r["sha256"]) == 64 and int(r["bytes"]) > 0 for r in rows)
    with Image.open(run / "samples" / "000006.png") as picture:
        assert picture.size == (3 * 32 + 8, 4 * 32 + 12)
    assert [row["step"] for row in table(run)] == ["3", "6"]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_a_finished_run_says_so_and_does_not_go_on_with_other_data(data, tmp_path, capsys):
    config = read_config(toml(tmp_path))
    train(config, data, tmp_path / "run")
    assert "finished" not in capsys.readouterr().out
    train(config, data, tmp_path / "run")
    assert "reference, finished before" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]) == 1
    save_png(data / "label" / "3.png", np.zeros((64, 64, 3)))
    with pytest.raises(TrainingError, match=r"1 files differ: label/3\.png"):
        train(config, data, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("named", [True, False])
def test_a_validation_is_held_on_what_is_held_out_or_on_all(named, data, tmp_path):
    held = 'holdout = [["2", "3"]]\n'
    for number in (2, 3):  # hardly cloudy, while the others have nothing in common
        ground = np.random.default_rng(number).integers(0, 250, (64, 64, 3))
        save_png(data / "cloud" / f"{number}.png", ground)
        save_png(data / "label" / f"{number}.png", ground + 1)
    more = held + '[validation]\nfolder = "."\ntone = false\n' + (held if named else "")
    figures = train(read_config(toml(tmp_path, 3, more=more)), data, tmp_path / "run", quiet=True)
    assert (figures["input_db"] > 40) is named


def test_a_refused_run_leaves_the_record_of_the_one_that_is_there(data, tmp_path):
    train(read_config(toml(tmp_path)), data, tmp_path / "run", quiet=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    other = toml(tmp_path, batch=4)
    with pytest.raises(TrainingError, match="another configuration"):
        train(read_config(other), data, tmp_path / "run", quiet=True, texts=read_texts(other))
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before


def test_a_run_that_has_begun_needs_no_earlier_one(data, tmp_path):
    config = read_config(toml(tmp_path))
    train(config, data, tmp_path / "first", quiet=True)
    train(config, data, tmp_path / "run", [tmp_path / "first"], quiet=True, minutes=0)
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(UnknownModelError):
        train(config, data, tmp_path / "new", [tmp_path / "first"], quiet=True)
    train(config, data, tmp_path / "run", [tmp_path / "first"], quiet=True)
    assert table(tmp_path / "run")[-1]["step"] == "6"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["initial"]


def test_a_detector_whose_processor_time_is_over_is_calibrated(monkeypatch, data, tmp_path):
    part = DataConfig(clear="label", simulate=1.0, holdout=(("2", "3"),))
    detector = DetectorConfig(bands=3, widths=(4, 8), factor=2)
    run = replace(read_config(toml(tmp_path)), stage="detector", data=(part,), detector=detector, steps=2000)
    figures = train(run, data, tmp_path / "run", quiet=True, cpu_minutes=0.01)
    assert figures["threshold"] > 0
    assert (tmp_path / "run" / "detector.json").exists()
    monkeypatch.setattr(stage, "_calibrated", lambda *_: pytest.fail("only paused"))
    train(run, data, tmp_path / "other", quiet=True, minutes=0)


def test_images_that_are_not_judged_choose_no_threshold(monkeypatch, tmp_path):
    parts = [
        DataConfig(clear=name, simulate=1.0, holdout=held, judged=judged)
        for name, held, judged in (("a", (("1", "2"),), True), ("b", (("1", "2"),), False), ("c", (), True))
    ]
    run = replace(read_config(toml(tmp_path)), data=tuple(parts))
    detector = build_detector(DetectorConfig(bands=3, widths=(2,)))
    monkeypatch.setattr(stage, "load_source", lambda part, *_, **__: SimpleNamespace(config=part))
    monkeypatch.setattr(stage, "labelled", lambda source, *_, **__: source.config.clear)
    monkeypatch.setattr(stage, "calibrate", lambda _, sources, *__: sources)
    trainer = SimpleNamespace(ema={"detector": detector}, folder=tmp_path)
    assert stage._calibrated(run, trainer, tmp_path) == {"simulated": ["a"]}
    with pytest.raises(ValueError, match="judged = false is of images that are held out"):
        DataConfig(clear="a", simulate=1.0, judged=False)


def test_all_that_is_wrong_with_the_data_is_said_at_once(data, tmp_path):
    save_png(data / "cloud" / "0.png", np.zeros((64, 64)))
    save_png(data / "label" / "0.png", np.zeros((64, 64)))
    save_png(data / "cloud" / "1.png", np.zeros((32, 64, 3)))
    (data / "label" / "2.png").write_bytes(b"no picture")
    (data / "label" / "3.png").unlink()
    for kind in ("cloud", "label"):
        save_png(data / kind / "4.png", np.zeros((20, 64, 3)))
    arguments = [str(a) for a in command(toml(tmp_path), data, tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "5 of 6 images" in result.stderr
    for text in (
        "0.png: 1 bands, the model has 3",
        "1.png: cloudy is (3, 32, 64)",
        "2.png: ",
        "3 has no twin",
    ):
        assert text in result.stderr
    assert "4.png: 20 px at the smallest of its scales, a crop has 32" in result.stderr
    assert not (tmp_path / "run").exists()


def test_images_that_are_smaller_than_a_crop_are_told_in_one_line(data, tmp_path):
    path = toml(tmp_path)
    path.write_text(path.read_text().replace("crop = 32", "crop = 128"))
    with pytest.raises(TrainingError) as refusal:
        train(read_config(path), data, tmp_path / "run", quiet=True)
    assert str(refusal.value) == (
        f"6 of 6 images of {data} cannot be used: 0.png: 64 px at the smallest of its scales, a crop has 128 "
        "(and 5 more that are too small); mend them or take them out, or set crop lower"
    )


def test_two_runs_in_one_folder_do_not_meet(data, tmp_path):
    whole = command(toml(tmp_path, steps=2000, every=1), data, tmp_path / "run")
    first = start(*whole)
    try:
        while not (tmp_path / "run" / CHECKPOINT).exists():
            assert first.poll() is None
            time.sleep(0.01)
        second = start(*whole)
        _, told = second.communicate()
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 1
    assert re.search(rf"process {first.pid} .* is training in .*run: wait for it", told), told
    finish(*command(toml(tmp_path, steps=2, every=1), data, tmp_path / "other"))


@pytest.mark.parametrize("key", ["checkpoint_every", "validate_every"])
def test_never_is_no_interval(key, data, tmp_path):
    config = toml(tmp_path, steps=2, every=1)
    config.write_text(re.sub(rf"{key} = .*", f"{key} = 0", config.read_text()))
    with pytest.raises(ValueError, match="checkpoint_every and validate_every must be 1 at least"):
        read_config(config)
