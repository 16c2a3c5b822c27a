import numpy as np
import pytest

from decr_scene.models.training.data import Pair
from decr_scene.pipeline.evaluation import Evaluation, judge


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    clear = rng.uniform(-0.6, 0.2, (3, 64, 64)).astype(np.float32)
    cloudy = (0.8 * clear + 0.1).astype(np.float32)
    cloudy[:, :20] = 0.9
    return Pair("x", cloudy, clear, None)


def test_the_truth_in_the_tone_of_the_cloudy_image_is_perfect(pair):
    truth = 0.8 * pair.clear + np.float32(0.1)
    row = judge(pair, {"cloudy": pair.cloudy, "reference": pair.clear, "DE": truth})
    assert row["DE/psnr_tone"] > 45
    assert row["DE/psnr_under_cloud"] > row["cloudy/psnr_under_cloud"] + 20
    assert row["DE/clear_shift_dn"] < 0.6
    assert row["reference/clear_shift_dn"] > 5
    assert row["reference/psnr"] == 100
    assert row["DE/texture"] == pytest.approx(1, abs=0.02)


def test_a_table_tells_what_diffusion_adds_and_how_surely():
    rows = tuple(
        {"cloudy/psnr": 20.0, "reference/psnr": 30.0, "DE/psnr": 30 + g} for g in (0.1, 0.2, 0.3, 0.2)
    )
    evaluation = Evaluation(tuple("abcd"), rows)
    gain, low, high = evaluation.gain("psnr")
    assert gain == pytest.approx(0.2)
    assert 0.1 <= low < gain < high <= 0.3
    assert "+0.2000" in evaluation.to_text()


def test_a_table_is_written_for_every_image(tmp_path):
    evaluation = Evaluation(("a", "b"), ({"DE/psnr": 1.0}, {"DE/psnr": 2.0}))
    evaluation.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().split() == ["name,DE/psnr", "a,1.00000", "b,2.00000"]
