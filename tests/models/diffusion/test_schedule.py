import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decr_scene.models.diffusion.schedule import Schedule

SCHEDULE = Schedule()
STEPS = st.integers(0, 999)


def images(count: int = 3, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, 8, 8, generator=generator) for _ in range(count)]


@given(t=STEPS)
def test_signal_and_noise_keep_unit_variance(t: int) -> None:
    total = SCHEDULE.sqrt_alphas_cumprod[t] ** 2 + SCHEDULE.sqrt_one_minus_alphas_cumprod[t] ** 2
    assert total == pytest.approx(1, rel=1e-12)


@given(t=st.integers(0, 900))
def test_the_image_comes_back_from_its_noise(t: int) -> None:
    x0, noise, _ = images()
    x_t = SCHEDULE.add_noise(x0, noise, t)
    gain = SCHEDULE.sqrt_recip_alphas_cumprod[t]
    assert torch.allclose(SCHEDULE.x0_from_eps(x_t, noise, t), x0, atol=2e-6 * gain)
    assert torch.allclose(SCHEDULE.eps_from_x0(x_t, x0, t), noise, atol=1e-4)


def test_a_batch_may_be_spread_over_steps() -> None:
    x0, noise, _ = images()
    spread = SCHEDULE.add_noise(x0, noise, torch.tensor([7, 700]))
    assert torch.allclose(spread[:1], SCHEDULE.add_noise(x0[:1], noise[:1], 7))
    assert torch.allclose(spread[1:], SCHEDULE.add_noise(x0[1:], noise[1:], 700))


@given(t=st.integers(1, 999))
def test_posterior_of_neighbours_has_the_tables_coefficients(t: int) -> None:
    x0, x_t, _ = images()
    mean, variance = SCHEDULE.posterior(x0, x_t, t, t - 1)
    expected = SCHEDULE.posterior_mean_coef1[t] * x0 + SCHEDULE.posterior_mean_coef2[t] * x_t
    assert torch.allclose(mean, expected, atol=1e-6)
    assert variance == pytest.approx(SCHEDULE.posterior_variance[t], rel=1e-9)


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_posterior_over_a_gap_is_the_respaced_posterior(steps: int) -> None:
    x0, x_t, _ = images()
    respaced = SCHEDULE.respaced(steps)
    for index, (t, s) in zip(range(steps - 1, -1, -1), SCHEDULE.pairs(steps), strict=True):
        mean, variance = SCHEDULE.posterior(x0, x_t, t, s)
        expected, of_table = respaced.posterior(x0, x_t, index, index - 1)
        assert torch.allclose(mean, expected, atol=1e-6)
        assert variance == pytest.approx(of_table, rel=1e-9)


def test_the_last_step_of_the_posterior_is_the_image() -> None:
    x0, x_t, _ = images()
    mean, variance = SCHEDULE.posterior(x0, x_t, 0, -1)
    assert torch.allclose(mean, x0)
    assert variance == 0


@given(steps=st.integers(1, 1000))
def test_pairs_are_the_published_steps_or_an_error_that_helps(steps: int) -> None:
    strides = [n for n in range(1, 1001) if len(range(0, 1000, n)) == steps]
    if not strides:
        with pytest.raises(ValueError, match=rf"^{steps} steps .* take \d+ or \d+$"):
            SCHEDULE.pairs(steps)
        return
    times = [t for t, _ in SCHEDULE.pairs(steps)]
    assert times == list(range(0, 1000, strides[0]))[::-1]
    assert list(SCHEDULE.respaced(steps).timestep_map) == times[::-1]


@pytest.mark.parametrize(("steps", "first", "last"), [(50, 980, 0), (10, 900, 0), (5, 800, 0), (1, 0, 0)])
def test_published_runs_begin_and_end_where_they_should(steps: int, first: int, last: int) -> None:
    pairs = SCHEDULE.pairs(steps)
    assert pairs[0][0] == first
    assert pairs[-1] == (last, -1)


@pytest.mark.parametrize("steps", [0, -1, 1001, 60, 300])
def test_steps_that_do_not_divide_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="do not divide the schedule of 1000 evenly: take"):
        SCHEDULE.pairs(steps)


@given(start=st.integers(1, 999), data=st.data())
def test_a_run_from_a_start_falls_evenly_to_the_image(start: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, start))
    pairs = SCHEDULE.pairs(steps, start)
    times = [t for t, _ in pairs]
    assert len(pairs) == steps
    assert times[0] == start
    assert [s for _, s in pairs] == [*times[1:], -1]
    gaps = -np.diff([*times, 0])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 2


@pytest.mark.parametrize(("steps", "start"), [(1, 0), (1, 1000), (0, 5), (6, 5)])
def test_a_start_without_room_is_refused(steps: int, start: int) -> None:
    with pytest.raises(ValueError, match=r"must be in \[1, \d+\], got"):
        SCHEDULE.pairs(steps, start)


def test_a_schedule_refuses_betas_that_are_no_variances() -> None:
    with pytest.raises(ValueError, match="betas must be numbers between 0 and 1"):
        Schedule(np.array([0.1, 1.0]), np.arange(2))
    with pytest.raises(ValueError, match="2 betas, a timestep_map of 3"):
        Schedule(np.array([0.1, 0.2]), np.arange(3))


def test_the_clean_image_has_abar_one() -> None:
    assert SCHEDULE.abar(-1) == 1
    assert SCHEDULE.abar(999) == math.prod(1 - SCHEDULE.betas)
