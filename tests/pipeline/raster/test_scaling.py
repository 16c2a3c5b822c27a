import numpy as np
import pytest
from raster_cases import write

from decr_scene.pipeline.errors import SceneError
from decr_scene.pipeline.raster.radiometry import Radiometry
from decr_scene.pipeline.raster.scaling import Fit, fit_radiometry, has_border, white_places
from decr_scene.pipeline.raster.scene import RasterioScene


def test_uint8_is_scaled_as_published():
    radiometry = fit_radiometry(np.dtype("uint8"), 3, np.empty(0), np.empty(0, bool), Fit())
    dn = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3).repeat(3, axis=0)
    np.testing.assert_allclose(radiometry.to_model(dn)[0, 0], [-1, -0.6, 1], atol=1e-6)


def test_eight_bits_are_fitted_on_request_but_not_to_a_band_that_is_missing_or_all_white():
    fit, rng = Fit(curved=True, fits_bytes=True), np.random.default_rng(0)
    sample = rng.integers(40, 120, (4, 5000)).astype(np.uint8)
    valid = np.ones(sample.shape, bool)
    found = fit_radiometry(sample.dtype, 4, sample, valid, fit)
    assert (found.low, found.high) == ((40,) * 4, (119,) * 4)
    assert (found.gamma, found.of_bytes) == (0.7, True)
    sample[:, :2000] = 0
    assert fit_radiometry(sample.dtype, 4, sample, valid, fit) == found, "a border that is not declared"
    for band, value in ((3, 0), (slice(0, 4), rng.integers(235, 256, (4, 5000)))):
        sample[band] = value
        assert fit_radiometry(sample.dtype, 4, sample, valid, fit) == Radiometry((0.0,) * 4, (255.0,) * 4)


def test_limits_are_robust_and_do_not_see_nodata():
    rng = np.random.default_rng(0)
    sample = rng.integers(500, 9000, (1, 20000)).astype(np.uint16)
    sample[0, :3] = 65535
    sample[0, 10000:] = 0
    radiometry = fit_radiometry(sample.dtype, 1, sample, sample != 0, Fit())
    assert 500 <= radiometry.low[0] < 600
    assert 8900 < radiometry.high[0] <= 9000


@pytest.mark.parametrize("sample", [np.full((1, 9), 7.0), np.full((1, 9), np.nan)])
def test_a_band_without_spread_still_has_a_scaling(sample):
    radiometry = fit_radiometry(np.dtype("float32"), 1, sample, np.isfinite(sample), Fit())
    assert radiometry.low[0] < radiometry.high[0]


LAND = np.array([300, 500, 400, 3000])
"""Dark crops: near infrared is by far their brightest band."""


def cloudy_windows(light, opacity, black=(0, 0, 0, 0), seed=0):
    """Return four bands of uint16, ``(4, 2, 64, 64)``, a third of which a cloud of some light covers."""
    rng = np.random.default_rng(seed)
    ground = LAND[:, None, None, None] * rng.uniform(0.5, 1.5, (1, 2, 64, 64))
    cover = np.zeros((2, 64, 64))
    cover[:, :, 40:] = opacity * rng.uniform(0.9, 1, (2, 64, 24))
    veiled = (1 - cover) * ground + cover * np.array(light)[:, None, None, None]
    return (veiled + np.array(black)[:, None, None, None]).astype(np.uint16)


def fitted(windows):
    return fit_radiometry(windows.dtype, len(windows), windows, np.ones(windows.shape, bool), Fit())


def share_of_span(radiometry, light, black=0):
    low, high = np.array(radiometry.low), np.array(radiometry.high)
    return (np.array(light) + black - low) / (high - low)


@pytest.mark.parametrize("opacity", [1.0, 0.9])
def test_a_white_cloud_is_as_white_in_near_infrared_over_bright_vegetation(opacity):
    light = [3500] * 4
    shares = share_of_span(fitted(cloudy_windows(light, opacity)), light)
    assert shares.max() / shares.min() < (1.05 if opacity == 1 else 1.1)
    plain = cloudy_windows(light, opacity)
    flat = share_of_span(fitted(plain.reshape(4, -1)), light)
    assert flat.max() / flat.min() > 1.15, "by quantiles alone it is not"


def test_a_cloud_that_the_sensor_tints_is_made_white():
    light = [3000, 3000, 3200, 3900]
    shares = share_of_span(fitted(cloudy_windows(light, 1.0)), light)
    assert shares.max() / shares.min() < 1.05


def test_bands_with_other_gains_and_scenes_without_cloud_keep_their_quantiles():
    for windows in (cloudy_windows([2000, 2000, 2000, 4000], 1.0), cloudy_windows([1] * 4, 0.0)):
        assert fitted(windows) == fitted(windows.reshape(4, -1))


def test_what_is_invalid_is_not_white():
    windows = cloudy_windows([3500] * 4, 1.0)
    holed, valid = windows.copy(), np.ones(windows.shape, bool)
    holed[..., :5, :], valid[..., :5, :] = 65535, False
    found = fit_radiometry(holed.dtype, 4, holed, valid, Fit())
    expected = fitted(windows[..., 5:, :])
    np.testing.assert_allclose(found.high, expected.high, rtol=0.02)
    nothing = fit_radiometry(holed.dtype, 4, holed, np.zeros_like(valid), Fit())
    assert nothing.low == (0.0,) * 4


def test_below_a_veil_there_is_room_for_darker_ground():
    rng = np.random.default_rng(0)
    ground = LAND[:, None, None, None] * rng.uniform(0.2, 1.5, (1, 2, 64, 64))
    limits = {}
    for thin in (1.0, 0.66, 0.3):  # of the ground's light comes through
        windows = (thin * ground + (1 - thin) * 3000).astype(np.uint16)
        limits[thin] = [
            fit_radiometry(windows.dtype, 4, windows, np.ones(windows.shape, bool), Fit(veiled=may_be))
            for may_be in (False, True)
        ]
    assert limits[1.0][0] == limits[1.0][1], "some place is dark: no veil"
    assert limits[0.3][1].low == (0.0,) * 4
    assert min(limits[0.3][0].low) > 1500, "by quantiles alone nothing may be darker than the veil"
    part = np.array(limits[0.66][1].low) / limits[0.66][0].low
    assert 0.2 < part.max() < 0.8
    np.testing.assert_allclose(part, part[0])


def test_a_band_without_spread_says_nothing_of_a_veil_and_keeps_its_limits():
    windows = (0.3 * cloudy_windows([1] * 4, 0.0) + 2100).astype(np.uint16)
    for dead in (0, 1234):
        windows[3] = dead
        found = fit_radiometry(windows.dtype, 4, windows, np.ones(windows.shape, bool), Fit(veiled=True))
        assert found.low == (0.0, 0.0, 0.0, dead - 0.5)


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (4, 1, 3, 200), (4, 5, 130, 7)])
def test_windows_of_any_size_have_a_scaling(shape):
    windows = np.random.default_rng(1).integers(900, 1000, shape).astype(np.uint16)
    radiometry = fitted(windows)
    assert (np.array(radiometry.low) < radiometry.high).all()


def test_values_below_zero_are_no_light():
    windows = cloudy_windows([3500] * 4, 1.0).astype(np.float32) - 4000
    assert fitted(windows) == fitted(windows.reshape(4, -1))


@pytest.mark.parametrize(("roof", "crops"), [(1500, 3500), (2000, 4500), (3000, 4500)])
def test_grey_roofs_do_not_hide_bright_crops(roof, crops):
    rng = np.random.default_rng(0)
    scene = np.array([300, 500, 400, crops])[:, None, None, None] * rng.uniform(0.8, 1.2, (1, 4, 128, 128))
    scene[:, :, :32, :32] = roof * rng.uniform(0.97, 1.03, (4, 4, 32, 32))
    scene = scene.astype(np.uint16)
    high = np.array(fitted(scene).high)
    assert (high >= fitted(scene.reshape(4, -1)).high).all()


def test_an_offset_that_makes_all_things_grey_does_not_close_a_band():
    rng = np.random.default_rng(0)
    step = rng.uniform(0, 1, (1, 1, 32, 32)).repeat(8, 2).repeat(8, 3)
    offset, span = (
        np.array(v)[:, None, None, None] for v in ([2600, 2400, 2200, 1300], [150, 300, 500, 1200])
    )
    windows = (offset + span * step).astype(np.uint16)
    plain, found = fitted(windows.reshape(4, -1)), fitted(windows)
    spans = [np.array(r.high) - r.low for r in (plain, found)]
    assert (spans[1] >= spans[0]).all()
    assert (spans[1] <= 2 * spans[0]).all()


@pytest.mark.parametrize("far", [-1.7976931348623157e308, np.inf, np.nan])
def test_what_is_invalid_raises_no_warning(far):
    windows = cloudy_windows([3500] * 4, 1.0).astype(np.float64)
    valid = np.ones(windows.shape, bool)
    expected = fitted(windows[..., 8:, :])
    windows[..., :8, :], valid[..., :8, :] = far, False
    np.testing.assert_allclose(
        fit_radiometry(windows.dtype, 4, windows, valid, Fit()).high, expected.high, rtol=0.02
    )


def test_a_band_without_spread_keeps_its_span():
    windows = cloudy_windows([3500] * 4, 1.0)
    for value in (77, 3300, 3400):
        windows[0] = value
        radiometry = fitted(windows)
        assert (radiometry.low[0], radiometry.high[0]) == (value - 0.5, value + 0.5)


def test_bands_in_which_cloud_is_dark_have_no_say():
    windows = cloudy_windows([3500] * 4, 1.0)
    swir = windows[:1] // 2 + 7
    names = ("nir", "swir", "blue", "red", "green")
    mixed = np.concatenate([windows, swir])[[3, 4, 0, 2, 1]]
    found = fit_radiometry(mixed.dtype, 5, mixed, np.ones(mixed.shape, bool), Fit(white_places(names)))
    expected, alone = fitted(windows), fitted(swir)
    assert [found.high[i] for i in (2, 4, 3, 0)] == list(expected.high)
    assert (found.low[1], found.high[1]) == (alone.low[0], alone.high[0])
    assert white_places(("a", "b")) == (0, 1)


@pytest.mark.parametrize("light", [[3500] * 4, [3000, 3000, 3200, 3900]])
def test_no_limit_falls_below_its_quantile(light):
    windows = cloudy_windows(light, 1.0)
    plain, found = fitted(windows.reshape(4, -1)), fitted(windows)
    assert found.low == plain.low
    assert (np.array(found.high) >= plain.high).all()
    assert max(found.high) > max(light), "near infrared of the crops is brighter than the cloud"


def test_the_order_of_bands_is_nothing_to_the_last_bit():
    for seed in range(20):
        windows = cloudy_windows([3500, 3501.3, 3499.1, 3502.7], 0.97, seed=seed).astype(np.float64) / 7
        order = np.random.default_rng(seed).permutation(4)
        assert [fitted(windows).high[i] for i in order] == list(fitted(windows[order]).high)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_border_that_is_not_declared_has_no_say(dtype):
    rng = np.random.default_rng(0)
    sample = rng.integers(700, 900, (4, 3, 64, 64)).astype(dtype)
    valid = np.ones(sample.shape, bool)
    found = fit_radiometry(sample.dtype, 4, sample, valid, Fit())
    sample[:, 0, :20] = 0
    limits = fit_radiometry(sample.dtype, 4, sample, valid, Fit())
    np.testing.assert_allclose([limits.low, limits.high], [found.low, found.high], rtol=0.01)


def test_a_border_is_told_from_dark_water_by_its_corner(tmp_path):
    rng = np.random.default_rng(0)

    def scene(changed, shape=(300, 500), bands=4, **profile):
        pixels = rng.integers(700, 900, (bands, *shape), np.uint16)
        pixels[(slice(None), *changed)] = 0
        opened = RasterioScene.open(write(tmp_path / f"{rng.integers(10**9)}.tif", pixels, **profile))
        return opened, range(bands)

    side, corner = (slice(None), slice(-20, None)), (slice(-40, None), slice(0, 40))
    assert has_border(*scene(side))
    assert has_border(*scene(corner))
    assert has_border(*scene(corner, shape=(50, 60)))
    assert not has_border(*scene((slice(80, 200), slice(100, None)))), "a lake at the edge"
    assert not has_border(*scene((slice(0, 1), slice(0, 1)))), "a dark pixel"
    assert not has_border(*scene(side, nodata=0))
    assert not has_border(*scene(side, bands=1))


@pytest.mark.parametrize(
    ("dtype", "fill"), [("float32", -9999), ("int16", -32768), ("int16", -9999), ("float64", -99)]
)
def test_values_that_stand_for_no_data_are_refused(dtype, fill):
    rng = np.random.default_rng(0)
    sample = rng.normal(3000, 500, (4, 3, 64, 64)).astype(dtype)
    valid = np.ones(sample.shape, bool)
    sample[:, 0, 0, 0] = fill
    fit_radiometry(sample.dtype, 4, sample, valid, Fit())  # by chance
    sample[:3, 0, :10] = fill
    fit_radiometry(sample.dtype, 4, sample, valid, Fit())  # one band shows ground
    sample[3, 0, 10:20] = fill + 1
    sample[3, 0, :10] = fill
    fit_radiometry(sample.dtype, 4, sample, valid, Fit())  # one band has values next to it
    sample[3] = rng.normal(3000, 500, sample.shape[1:])
    sample[:, 0, :10] = fill
    sample[:, 1, 0] = np.linspace(fill, 3000, 64)  # what a warp leaves along a seam
    with pytest.raises(
        SceneError, match=f"5.22% of the pixels .* are {fill} in all bands.* -a_nodata {fill}"
    ):
        fit_radiometry(sample.dtype, 4, sample, valid, Fit())
    valid[:, 0, :10] = False
    fit_radiometry(sample.dtype, 4, sample, valid, Fit())
