"""Systems side by side on the same pairs, and what each of them costs."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import first_table, invoke, rice
from model_cases import tiny_model
from PIL import Image

from decr_scene.models.checkpoints.model_file import ModelConfig, build_modules, save_model_file
from decr_scene.models.model import load_model
from decr_scene.models.networks.reference import ReferenceConfig
from decr_scene.pipeline.errors import OptionError
from decr_scene.pipeline.evaluation.answers import Settings
from decr_scene.pipeline.evaluation.calibrate import calibrate_model
from decr_scene.pipeline.evaluation.compare import ablation, compare, compare_alone, compare_models, sweep
from decr_scene.pipeline.evaluation.complexity import multiply_adds
from decr_scene.pipeline.evaluation.evaluate import evaluate_pairs, paired
from decr_scene.pipeline.evaluation.plots import free_place, weight_maps


def test_an_ablation_has_a_row_for_every_prior(folder, model, measured, tmp_path):
    table = tmp_path / "table.csv"
    result = invoke("--model", model, "--data", folder, "--ablation", "--steps", 2, "--csv", table)
    assert result.exit_code == 0, result.output
    labels = ["cloudy", "reference only", "no prior", "fixed weight 0.5", "own weight"]
    assert [line[:20].strip() for line in first_table(result).splitlines()[1:]] == labels
    rows = {row["system"]: row for row in csv.DictReader(table.read_text().splitlines())}
    own = measured.mean()
    for label, who in (
        ("cloudy", "cloudy"),
        ("reference only", "reference"),
        ("own weight", "DE"),
    ):
        assert float(rows[label]["psnr"]) == pytest.approx(own[f"{who}/psnr"], abs=1e-4)
    assert len({row["psnr"] for row in rows.values()}) == 5


def test_a_sweep_has_a_row_for_every_value(folder, model, measured):
    result = invoke("--model", model, "--data", folder, "--sweep", "weight-floor=0.3,1")
    assert result.exit_code == 0, result.output
    assert [line.split("  ")[0] for line in first_table(result).splitlines()[2:]] == [
        "weight-floor 0.3",
        "weight-floor 1",
    ]
    found = compare(sweep(str(model), Settings(), "steps", (1, 2)), folder).rows
    assert found["steps 2"]["psnr"] == measured.mean()["DE/psnr"]
    assert found["steps 1"]["psnr"] != found["steps 2"]["psnr"]


def test_the_strength_of_what_sampling_adds_can_be_swept(folder, model, measured):
    found = compare(sweep(str(model), Settings(), "gain", (0, 0.5, 1)), folder).rows
    assert found["gain 1"]["psnr"] == measured.mean()["DE/psnr"]
    assert found["gain 0"]["psnr"] == pytest.approx(measured.mean()["reference/psnr"], abs=1e-4)
    assert found["gain 0.5"]["psnr"] not in (found["gain 0"]["psnr"], found["gain 1"]["psnr"])


def test_models_are_compared_on_the_same_pairs(folder, model, tmp_path):
    other = tiny_model(tmp_path / "other.safetensors", seed=1)
    result = invoke("--model", model, "--model", other, "--data", folder)
    assert result.exit_code == 0, result.output
    labels = ["cloudy", "tiny reference", "tiny", "other reference", "other"]
    assert [line[:20].strip() for line in first_table(result).splitlines()[1:]] == labels
    four = tiny_model(tmp_path / "four.safetensors", bands=("red", "green", "blue", "nir"))
    with pytest.raises(OptionError, match="compare models of the same bands"):
        compare(compare_models([str(model), str(four)], Settings()), folder)


def test_a_model_named_as_a_column_does_not_take_its_place(folder, tmp_path):
    files = [
        str(tiny_model(tmp_path / f"{name}.safetensors", seed=1)) for name in ("cloudy", "fill", "truth")
    ]
    labels = [system.label for system in compare_alone(files, Settings())]
    assert labels == files
    others = compare_alone(["models/one.safetensors", "fill"], Settings())
    assert [system.label for system in others] == ["one", "fill"]
    found = compare(compare_alone(files[:2], Settings()), folder, with_baselines=True).rows
    assert list(found) == ["cloudy", "fill", *files[:2]]
    assert found["cloudy"]["psnr"] != found[files[0]]["psnr"]


def test_of_how_many_pairs_a_figure_is_the_mean_stands_below(tmp_path):
    """Of three pairs, the ground of the middle one is seen everywhere: there is no cloud to judge under."""
    root = rice(tmp_path)
    (root / "cloud" / "1.png").write_bytes((root / "label" / "1.png").read_bytes())
    result = invoke("--compare", "fill", "--bands", "red,green,blue", "--data", root)
    assert result.exit_code == 0, result.output
    lines = first_table(result).splitlines()
    names = lines[0].split()[2:]
    cells = [lines[-1][20 + 18 * i : 38 + 18 * i].strip() for i in range(len(names))]
    counts = dict(zip(names, cells, strict=True))
    assert lines[-1].startswith("mean of pairs")
    assert counts["psnr_under_cloud"] == "2"
    assert counts["psnr"] == ""


def test_one_pair_has_no_interval():
    assert paired([0.5])[0] == 0.5
    assert np.isnan(paired([0.5, np.nan])[1:]).all()
    assert np.isfinite(paired([0.5, 0.7])).all()


@pytest.mark.parametrize("variants", [("--ablation",), ("--sweep", "gain=1,2")])
def test_variants_of_what_takes_no_steps_are_refused(variants, folder):
    result = invoke("--model", "fill", "--bands", "red,green,blue", "--data", folder, *variants)
    assert result.exit_code == 2, result.output
    assert "fill takes no steps, so all settings give one answer" in " ".join(result.stderr.split())


def test_an_ablation_without_a_prior_begins_at_noise():
    settings = {system.label: system.settings for system in ablation("m", Settings(steps=5, start=100))}
    assert settings["no prior"] == Settings(steps=5, start=1000, weight=0.0)
    assert settings["fixed weight 0.5"] == Settings(steps=5, start=100, weight=0.5)
    own = {system.label: system.settings for system in ablation("m", Settings())}
    assert own["no prior"].steps == 50
    assert own["own weight"].steps is None


def test_steps_that_a_model_cannot_take_are_refused_before_a_pair_is_read(folder, model, monkeypatch):
    for room in ("compare", "evaluate"):
        monkeypatch.setattr(
            f"decr_scene.pipeline.evaluation.{room}.load_pairs", lambda *_: pytest.fail("read")
        )
    for arguments in (["--ablation"], []):
        result = invoke("--model", model, "--data", folder, "--steps", 250, *arguments)
        assert result.exit_code == 2, result.output
        assert "tiny: steps from start 200 must be in [1, 200], got 250" in result.stderr


@pytest.fixture(scope="module")
def compared(folder, model, tmp_path_factory):
    """A comparison of two models, one of which takes the bands in another order; table, sheet and plots."""
    place = tmp_path_factory.mktemp("compared")
    other = tiny_model(place / "other.safetensors", seed=1, bands=("blue", "green", "red"))
    names = ("--csv", place / "table.csv", "--sheet", place / "sheet.png", "--plots", place / "plots")
    result = invoke("--compare", f"{model}, {other}", "--data", folder, "--perceptual", *names)
    assert result.exit_code == 0, result.output
    return place, result.stdout


def test_systems_are_held_against_the_input_and_the_fill(compared, measured):
    place, text = compared
    rows = {row["system"]: row for row in csv.DictReader((place / "table.csv").read_text().splitlines())}
    assert list(rows) == ["cloudy", "fill", "tiny", "other"]
    assert float(rows["cloudy"]["psnr_minus_cloudy"]) == 0
    gain = float(rows["tiny"]["psnr"]) - float(rows["fill"]["psnr"])
    assert float(rows["tiny"]["psnr_minus_fill"]) == pytest.approx(gain, abs=1e-4)
    low, high = (float(rows["tiny"][f"psnr_minus_fill_{end}"]) for end in ("low", "high"))
    assert low <= gain <= high
    assert "minus cloudy" in text
    textures = text.split("\n\n")[1].splitlines()
    assert [line[:20].split()[0] for line in textures[:5]] == ["texture", *rows]
    assert [line[:20].strip() for line in textures[5:]] == ["mean of pairs"], "not all have all regions"
    assert f"{float(rows['tiny']['octave1_thin']):.4f}" in textures[3]
    assert "gradient_shadow" in rows["tiny"]
    assert "minus fill" in text
    assert float(rows["tiny"]["psnr"]) == pytest.approx(measured.mean()["DE/psnr"], abs=1e-4)


def test_systems_are_compared_by_how_they_look(compared):
    place, text = compared
    rows = {row["system"]: row for row in csv.DictReader((place / "table.csv").read_text().splitlines())}
    found = {label: float(row["ukis_distance"]) for label, row in rows.items()}
    assert all(0 < value < 4 for value in found.values())
    assert len(set(found.values())) == 4
    gain = found["tiny"] - found["cloudy"]
    assert float(rows["tiny"]["ukis_distance_minus_cloudy"]) == pytest.approx(gain, abs=1e-4)
    assert "ukis_frechet" in text
    assert rows["tiny"]["ukis_frechet"] == "", "of three crops"
    drawn = csv.DictReader((place / "plots" / "perception_distortion.csv").read_text().splitlines())
    assert [float(row["ukis_distance"]) for row in drawn] == pytest.approx(list(found.values()), rel=1e-3)


def test_a_model_sees_the_bands_in_its_own_order(compared, folder):
    place, _ = compared
    rows = {row["system"]: row for row in csv.DictReader((place / "table.csv").read_text().splitlines())}
    own = evaluate_pairs(str(place / "other.safetensors"), folder, bands="red,green,blue").mean()
    assert float(rows["other"]["psnr"]) == pytest.approx(own["DE/psnr"], abs=1e-4)


def test_the_sheet_has_a_column_for_each_system(compared):
    place, _ = compared
    with Image.open(place / "sheet.png") as picture:
        assert picture.size == (5 * 64 + 4 * 4, 3 * (64 + 16) + 2 * 4)


def test_perception_is_plotted_against_distortion(compared):
    place, _ = compared
    rows = list(csv.DictReader((place / "plots" / "perception_distortion.csv").read_text().splitlines()))
    assert [row["series"] for row in rows] == ["cloudy", "fill", "tiny", "other"]
    with Image.open(place / "plots" / "perception_distortion.png") as picture:
        assert len(picture.getcolors(2**20)) > 5


def test_a_system_of_one_size_refuses_pairs_of_another(folder, tmp_path):
    reference = ReferenceConfig("cvae", 3, 4, side=32)
    config = ModelConfig("cvae", ("red", "green", "blue"), None, reference)
    save_model_file(tmp_path / "cvae.safetensors", config, build_modules(config).state_dict())
    with pytest.raises(OptionError, match=r"0 is 64 x 64 px, .* takes 32 x 32 alone: resize the pairs"):
        compare(compare_alone([str(tmp_path / "cvae.safetensors")], Settings()), folder)
    with pytest.raises(OptionError, match=r"0 is 64 x 64 px, .* takes 32 x 32 alone: resize the pairs"):
        evaluate_pairs(str(tmp_path / "cvae.safetensors"), folder)
    with pytest.raises(OptionError, match=r"0 is 64 x 64 px, .* takes 32 x 32 alone: resize the pairs"):
        calibrate_model(str(tmp_path / "cvae.safetensors"), folder, tmp_path / "out.safetensors")
    found = compare(compare_alone([str(tmp_path / "cvae.safetensors")], Settings()), folder, reduce=2)
    assert set(found.rows) == {"cloudy", "cvae"}


def test_multiply_adds_are_those_of_the_literature():
    def counted(kind, width):
        config = ModelConfig("x", ("red", "green", "blue"), None, ReferenceConfig(kind, 3, width))
        return multiply_adds(config, 1) / 1e9

    assert counted("amgan", 32) == pytest.approx(48.482, abs=1e-3)
    assert counted("cvae", 32) == pytest.approx(37.128, abs=1e-3)
    assert counted("diffcr", 64) == pytest.approx(2 * 45.841, abs=1e-3)


def test_multiply_adds_are_the_same_where_v_is_predicted_as_bundled_models_do(model):
    config = load_model(model).config
    assert config.network.prediction == "eps"
    other = replace(config, network=replace(config.network, prediction="v"))
    assert multiply_adds(other, 2) == multiply_adds(config, 2)


def test_a_first_guess_over_turns_costs_one_for_each(model):
    config = load_model(model).config
    own = multiply_adds(replace(config, network=None), 1)
    turned = replace(config, sampling=replace(config.sampling, turns=4))
    assert multiply_adds(turned, 2) == multiply_adds(config, 2) + 3 * own
    drawing = ModelConfig("x", ("red", "green", "blue"), None, ReferenceConfig("cvae", 3, 8))
    assert multiply_adds(replace(drawing, sampling=turned.sampling), 1) == multiply_adds(drawing, 1)


def test_costs_of_models_are_told(model, tmp_path):
    result = invoke("--complexity", "--compare", model, "--csv", tmp_path / "costs.csv")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader((tmp_path / "costs.csv").read_text().splitlines())
    assert float(row["parameters"]) == sum(p.numel() for p in load_model(model).modules.parameters())
    steps = multiply_adds(load_model(model).config, 2) - multiply_adds(load_model(model).config, 1)
    assert float(row["gmacs"]) * 1e9 == pytest.approx(
        multiply_adds(load_model(model).config, 1) + steps, rel=1e-4
    )
    assert float(row["images_per_second"]) > 0


def test_a_folder_that_is_not_there_is_said_first(tmp_path):
    result = invoke("--compare", "fill,identity", "--data", tmp_path / "none")
    assert result.exit_code == 2
    assert "is no folder, expected one with cloudy/ and clear/" in result.stderr


def test_fill_has_no_costs():
    result = invoke("--compare", "fill", "--complexity")
    assert result.exit_code == 2
    assert "fill has no network to count" in result.stderr


def test_names_of_points_that_lie_together_are_below_one_another():
    taken = []
    one, other, far = (free_place(taken, point, 40) for point in ((100, 100), (103, 101), (300, 100)))
    assert one == (106, 88)
    assert other == (109, 89 + 14)
    assert far == (306, 88)


def test_a_name_without_room_on_the_right_is_left_of_its_point():
    assert free_place([], (600, 100), 60) == (534, 88)


def test_maps_of_the_weight_stand_under_their_steps(tmp_path):
    weight_maps(tmp_path / "w", {5: np.zeros((40, 90), np.float32), 30: np.ones((40, 90), np.float32)})
    with Image.open(tmp_path / "w.png") as picture:
        grey = np.asarray(picture.convert("L"))
    first, second = grey[:, :90], grey[:, -90:]
    assert (first[-40:] == 255).all()
    assert (second[-40:] == 0).all()
    assert first[:-40].min() < 100
    assert second[:-40].min() < 100
    assert not np.array_equal(first[:-40], second[:-40])
