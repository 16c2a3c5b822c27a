"""Figures of one pair, and the table of those of several."""

import numpy as np
import pytest

from decr_scene.models.data.source import Pair
from decr_scene.pipeline.evaluation.evaluate import Evaluation
from decr_scene.pipeline.evaluation.figures import measure_answers, split_regions


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    clear = rng.uniform(-0.6, 0.2, (3, 64, 64)).astype(np.float32)
    cloudy = (0.8 * clear + 0.1).astype(np.float32)
    cloudy[:, :20] = 0.9
    return Pair("x", cloudy, clear, None)


def test_the_truth_in_the_tone_of_the_cloudy_image_is_perfect(pair):
    truth = 0.8 * pair.clear + np.float32(0.1)
    row = measure_answers(pair, {"cloudy": pair.cloudy, "reference": pair.clear, "DE": truth})
    assert row["DE/psnr_tone"] > 45
    assert row["DE/psnr_under_cloud"] > row["cloudy/psnr_under_cloud"] + 20
    assert row["DE/clear_shift_dn"] < 0.6
    assert row["reference/clear_shift_dn"] > 5
    assert row["reference/psnr"] == 100
    assert row["DE/texture"] == pytest.approx(1, abs=0.02)
    assert row["DE/octave1_opaque"] == pytest.approx(1, abs=0.02)
    assert row["DE/gradient_opaque"] == pytest.approx(1, abs=0.02)
    assert row["cloudy/gradient_opaque"] < 0.7
    assert np.isnan(row["DE/psnr_shadow"])


def test_a_pair_without_cloud_tells_nothing_of_what_is_under_it(pair):
    row = measure_answers(Pair("x", pair.clear, pair.clear.copy(), None), {"DE": pair.clear + 0.3})
    assert row["DE/psnr_clear_ground"] < 20
    for figure in ("psnr_under_cloud", "psnr_core", "psnr_thin", "psnr_shadow"):
        assert np.isnan(row[f"DE/{figure}"])


def test_a_pair_is_split_into_dense_cloud_thin_cloud_shadow_and_clear_ground():
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.4, -0.2, (3, 100, 100)).astype(np.float32)
    cloudy = truth + rng.normal(0, 0.002, truth.shape).astype(np.float32)
    cloudy[:, :15] = 0.9
    cloudy[:, 15:30] += 0.2
    cloudy[:, 90:] -= 0.15
    part = split_regions(cloudy, truth)
    assert part.core[:15].all()
    assert not part.core[15:].any()
    assert part.thin[15:30].all()
    assert part.shadow[90:].mean() > 0.99
    assert not part.shadow[:90].any()
    assert part.clear[30:90].mean() > 0.4
    assert not part.clear[:30].any()
    assert not part.clear[90:].any()


def test_a_table_tells_what_diffusion_adds_and_how_surely():
    rows = tuple(
        {"cloudy/psnr": 20.0, "reference/psnr": 30.0, "DE/psnr": 30 + g} for g in (0.1, 0.2, 0.3, 0.2)
    )
    evaluation = Evaluation(tuple("abcd"), rows)
    gain, low, high = evaluation.gain("psnr")
    assert gain == pytest.approx(0.2)
    assert 0.1 <= low < gain < high <= 0.3
    assert "+0.2000" in evaluation.to_text()


def test_a_figure_that_some_images_cannot_tell_is_of_the_others():
    rows = tuple({f"{who}/psnr": value for who in ("reference", "DE")} for value in (30.0, np.nan, 32.0))
    evaluation = Evaluation(tuple("abc"), rows)
    assert evaluation.mean()["DE/psnr"] == 31
    assert "of 2 pairs" in evaluation.to_text()


def test_a_row_of_the_table_is_of_the_same_pairs():
    rows = [
        {f"{who}/detail": value for who, value in zip(("cloudy", "reference", "DE"), values, strict=True)}
        for values in ((np.nan, 0.0, 0.0), (0.2, 0.4, 0.6), (0.4, 0.6, 0.8))
    ]
    line = Evaluation(tuple("abc"), tuple(rows)).to_text().splitlines()[1]
    assert line.split()[:5] == ["detail", "0.3000", "0.5000", "0.7000", "+0.2000"]
    assert line.endswith("of 2 pairs")
    without_cloudy = Evaluation(("a",), tuple(rows[:1])).to_text().splitlines()[1]
    assert without_cloudy.split()[1:5] == ["nan", "0.0000", "0.0000", "+0.0000"]
    assert "pairs" not in without_cloudy


def test_a_table_is_written_for_every_image(tmp_path):
    evaluation = Evaluation(("a", "b"), ({"DE/psnr": 1.0}, {"DE/psnr": np.nan}))
    evaluation.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().split() == ["name,DE/psnr", "a,1.00000", "b,"]


def test_figures_of_the_whole_set_are_told_below_those_of_images():
    rows = tuple({f"{who}/psnr": 30.0 for who in ("reference", "DE")} for _ in range(2))
    sets = {"reference": {"ukis_frechet": 2.5}, "DE": {"ukis_frechet": 1.25}}
    last = Evaluation(("a", "b"), rows, set_figures=sets).to_text().splitlines()[-1]
    assert last.split() == ["ukis_frechet", "2.5000", "1.2500"]
