import pytest
import torch
from torch import Tensor

from decr_scene.models.diffusion.denoiser import DEDenoiser, MicroBatched
from decr_scene.models.diffusion.sampling import DDPMSampler, DESampler
from decr_scene.models.diffusion.schedule import Schedule

SCHEDULE = Schedule()
SHAPE = (2, 3, 8, 8)


def drawn(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


NOISE, CLOUDY = drawn(0), drawn(1).clamp(-1, 1)
REFERENCE, CLEAR = drawn(2).clamp(-1, 1), drawn(3).clamp(-1, 1)


def all_knowing(weight: float) -> DEDenoiser:
    """A denoiser whose network sees through the noise to the clear image."""

    def network(x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        return SCHEDULE.eps_from_x0(x_t, CLEAR, t), torch.full_like(x_t, weight)

    return DEDenoiser(network, SCHEDULE)


def mixing(weight: float) -> DEDenoiser:
    """A denoiser whose network mixes all that it is given."""

    def network(x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        return x_t + 0.3 * cloudy - 0.2 * reference, torch.full_like(x_t, weight)

    return DEDenoiser(network, SCHEDULE)


def test_full_weight_returns_the_reference() -> None:
    found = DESampler(all_knowing(1.0), steps=10)(NOISE, CLOUDY, REFERENCE)
    assert torch.allclose(found, REFERENCE, atol=1e-6)


def test_no_weight_returns_what_the_network_knows() -> None:
    found = DESampler(all_knowing(0.0), steps=10)(NOISE, CLOUDY, REFERENCE, weight_floor=0.0)
    assert torch.allclose(found, CLEAR, atol=1e-4)


@pytest.mark.parametrize(
    ("raw", "floor", "weight"), [(-3, 0.3, 0.3), (0.1, 0.2, 0.2), (0.6, 0.3, 0.6), (9, 0.3, 1)]
)
def test_weight_is_limited_and_mixes_reference_and_clipped_estimate(
    raw: float, floor: float, weight: float
) -> None:
    found = all_knowing(raw)(SCHEDULE.add_noise(CLEAR, NOISE, 300), 300, CLOUDY, REFERENCE, floor)
    assert torch.allclose(found.weight, torch.full(SHAPE, float(weight)))
    assert torch.allclose(found.x0_eps, CLEAR, atol=1e-5)
    assert torch.allclose(found.x0, weight * REFERENCE + (1 - weight) * CLEAR, atol=1e-5)


def test_estimate_is_clipped_before_the_fusion() -> None:
    wild = DEDenoiser(lambda x_t, t, c, r: (torch.zeros_like(x_t), torch.full_like(x_t, 0.5)), SCHEDULE)
    found = wild(100 * NOISE, 900, CLOUDY, REFERENCE)
    assert found.x0_eps.abs().max() == 1
    assert torch.allclose(found.x0, (REFERENCE + found.x0_eps) / 2)


def test_with_texture_the_diffusion_gives_detail_and_the_reference_what_is_coarse() -> None:
    stripes = 0.1 - 0.2 * (torch.arange(64) // 2 % 2)
    clear = (stripes - 0.5).expand(2, 3, 64, 64).contiguous()
    guess = torch.full_like(clear, 0.3)

    def network(x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        return SCHEDULE.eps_from_x0(x_t, clear, t), torch.zeros_like(x_t)

    noise = torch.randn(clear.shape, generator=torch.Generator().manual_seed(0))
    all_of_it, detail = (
        DESampler(DEDenoiser(network, SCHEDULE, sigma), 5, 200)(noise, clear, guess, weight_floor=0.0)
        for sigma in (0.0, 6.0)
    )
    torch.testing.assert_close(all_of_it, clear, atol=1e-4, rtol=0)
    middle = (0.3 + stripes)[20:-20].expand(2, 3, 64, -1)
    torch.testing.assert_close(detail[..., 20:-20], middle, atol=0.01, rtol=0)


@pytest.mark.parametrize("floor", [-0.1, 1.1])
def test_a_floor_that_is_no_weight_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match=r"weight_floor must be in \[0, 1\]"):
        DESampler(all_knowing(1.0), steps=1)(NOISE, CLOUDY, REFERENCE, weight_floor=floor)


def test_a_step_keeps_the_noise_of_the_fused_estimate() -> None:
    sampler = DESampler(all_knowing(0.5), steps=5)
    x_t = SCHEDULE.add_noise(REFERENCE, NOISE, 600)
    expected = SCHEDULE.add_noise(REFERENCE, NOISE, 400)
    assert torch.allclose(sampler.step(x_t, REFERENCE, 600, 400), expected, atol=1e-4)
    assert torch.equal(sampler.step(x_t, REFERENCE, 600, -1), REFERENCE)


def test_a_start_begins_at_the_noised_reference() -> None:
    seen: list[int] = []
    sampler = DESampler(all_knowing(1.0), steps=4, start=400)
    assert torch.equal(sampler.begin(NOISE, REFERENCE), SCHEDULE.add_noise(REFERENCE, NOISE, 400))
    sampler(NOISE, CLOUDY, REFERENCE, on_step=lambda t, x0, weight: seen.append(t))
    assert seen == [400, 300, 200, 100]


def test_every_step_is_told() -> None:
    seen: list[tuple[int, bool]] = []
    DESampler(all_knowing(0.4), steps=5)(
        NOISE,
        CLOUDY,
        REFERENCE,
        on_step=lambda t, x0, weight: seen.append((t, x0.shape == weight.shape == SHAPE)),
    )
    assert seen == [(t, True) for t in (800, 600, 400, 200, 0)]


def test_every_step_is_taken_from_what_was_agreed_upon() -> None:
    agreed = CLEAR.mean(dim=0, keepdim=True).expand(SHAPE)
    seen: list[Tensor] = []

    def agree(x0: Tensor) -> Tensor:
        torch.testing.assert_close(x0, CLEAR, rtol=0, atol=1e-4)
        return agreed

    sampler = DESampler(all_knowing(0), steps=5)
    result = sampler(NOISE, CLOUDY, REFERENCE, 0, lambda t, x0, weight: seen.append(x0), agree)
    assert all(x0 is agreed for x0 in seen)
    torch.testing.assert_close(result, agreed, rtol=0, atol=1e-5)


def test_a_denoiser_in_parts_gives_the_same() -> None:
    x_t, denoiser = drawn(4), mixing(0.4)
    whole, parts = (each(x_t, 500, CLOUDY, REFERENCE) for each in (denoiser, MicroBatched(denoiser, 1)))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_so_many_images_are_seen_at_a_time_and_never_fewer() -> None:
    seen: list[int] = []

    def network(x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(x_t))
        return x_t * 0.1 + cloudy, reference

    denoiser, images = DEDenoiser(network, SCHEDULE), [drawn(i)[:1].repeat(5, 1, 1, 1) for i in range(3)]
    whole, parts = (
        denoiser(images[0], 500, *images[1:]),
        MicroBatched(denoiser, 2)(images[0], 500, *images[1:]),
    )
    assert seen == [5, 2, 2, 2]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_ancestral_sampling_ends_at_the_fused_estimate_without_noise() -> None:
    asked: list[int] = []

    def noise_at(t: int) -> Tensor:
        asked.append(t)
        return drawn(10 + t)

    found = DDPMSampler(all_knowing(0.5), steps=5)(NOISE, noise_at, CLOUDY, REFERENCE)
    assert torch.allclose(found, (REFERENCE + CLEAR) / 2, atol=1e-3)
    assert asked == [800, 600, 400, 200]


def test_ancestral_step_has_the_posteriors_spread() -> None:
    sampler = DDPMSampler(all_knowing(0.5))
    x_t = SCHEDULE.add_noise(CLEAR, NOISE, 500)
    mean, variance = SCHEDULE.posterior(CLEAR, x_t, 500, 499)
    assert torch.allclose(sampler.step(x_t, CLEAR, 500, 499, NOISE), mean + variance**0.5 * NOISE)
    assert torch.equal(sampler.step(x_t, CLEAR, 500, 499, None), mean)


def test_a_respaced_schedule_tells_the_network_the_original_steps() -> None:
    told: list[Tensor | int] = []

    def network(x_t: Tensor, t: Tensor | int, cloudy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        told.append(t)
        return torch.zeros_like(x_t), torch.ones_like(x_t)

    DESampler(DEDenoiser(network, SCHEDULE.respaced(5)), steps=5)(NOISE, CLOUDY, REFERENCE)
    assert told == [800, 600, 400, 200, 0]
