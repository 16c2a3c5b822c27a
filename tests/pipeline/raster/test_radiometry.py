import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decr_scene.pipeline.raster import radiometry as radiometry_module
from decr_scene.pipeline.raster.radiometry import Radiometry, fill_invalid
from decr_scene.pipeline.raster.scaling import fit_radiometry, white_places

DTYPES = ["uint8", "uint16", "int16", "float32"]
scalings = st.builds(
    lambda low, span: Radiometry((low,), (low + span,)), st.floats(-3000, 3000), st.floats(1, 40000)
)

curved_scalings = st.builds(Radiometry.curved, scalings)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_no_change_keeps_every_bit(dtype, data):
    dn = data.draw(arrays(dtype, (1, 3, 5)))
    radiometry = data.draw(scalings | curved_scalings)
    kept = radiometry.apply(dn, np.zeros(dn.shape, np.float32))
    assert kept.tobytes() == dn.tobytes()


@given(arrays("uint16", (1, 4, 4)), scalings, st.floats(-2, 2))
def test_a_change_is_scaled_rounded_and_saturated(dn, radiometry, change):
    changed = radiometry.apply(dn, np.full(dn.shape, change, np.float32))
    assert changed.dtype == dn.dtype
    low, high = radiometry.low[0], radiometry.high[0]
    inside = (dn >= low) & (dn <= high)
    wanted = np.clip(dn + np.float32(change) * (high - low) / 2, 0, 65535)
    tolerance = 0.51 + 1e-6 * (high - low)
    if abs(change) > 1e-5:
        assert (np.abs(changed[inside].astype(float) - wanted[inside]) <= tolerance).all()


@pytest.mark.parametrize("curve", [lambda scaling: scaling, Radiometry.curved])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_is_applied_as_if_pixel_by_pixel(dtype, curve, monkeypatch):
    rng = np.random.default_rng(0)
    dn = rng.integers(0, 256, (2, 37, 23)).astype(dtype)
    change = rng.standard_normal(dn.shape).astype(np.float32)
    change[:, 10:20] = 0
    valid = rng.random(dn.shape) > 0.2
    scaling = curve(Radiometry((20.0, 60.0), (180.0, 90.0)))
    whole = scaling.apply(dn, change, valid, 7)
    monkeypatch.setattr(radiometry_module, "STRIP", 50)
    assert scaling.apply(dn, change, valid, 7).tobytes() == whole.tobytes()
    for row, col in [(0, 0), (15, 3), (36, 22), (25, 11)]:
        pixel = (slice(None), slice(row, row + 1), slice(col, col + 1))
        alone = scaling.apply(dn[pixel], change[pixel], valid[pixel], 7)
        assert alone.tobytes() == whole[pixel].tobytes()


def test_uint8_is_scaled_as_published():
    radiometry = fit_radiometry(np.dtype("uint8"), 3, np.empty(0), np.empty(0, bool))
    dn = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3).repeat(3, axis=0)
    np.testing.assert_allclose(radiometry.to_model(dn)[0, 0], [-1, -0.6, 1], atol=1e-6)


def test_limits_are_robust_and_do_not_see_nodata():
    rng = np.random.default_rng(0)
    sample = rng.integers(500, 9000, (1, 20000)).astype(np.uint16)
    sample[0, :3] = 65535
    sample[0, 10000:] = 0
    radiometry = fit_radiometry(sample.dtype, 1, sample, sample != 0)
    assert 500 <= radiometry.low[0] < 600
    assert 8900 < radiometry.high[0] <= 9000


@pytest.mark.parametrize("sample", [np.full((1, 9), 7.0), np.full((1, 9), np.nan)])
def test_a_band_without_spread_still_has_a_scaling(sample):
    radiometry = fit_radiometry(np.dtype("float32"), 1, sample, np.isfinite(sample))
    assert radiometry.low[0] < radiometry.high[0]


def test_dn_beyond_the_limits_survive_where_nothing_changes_and_go_with_the_cloud_where_it_does():
    radiometry = Radiometry((0,), (1000,))
    dn = np.array([[[40000, 40000, 40000]]], np.uint16)
    change = np.array([[[0, -1, 0]]], np.float32)
    np.testing.assert_array_equal(radiometry.apply(dn, change), [[[40000, 500, 40000]]])


def test_invalid_pixels_stay_and_valid_ones_never_become_nodata():
    radiometry = Radiometry((0,), (200,))
    dn = np.array([[[0, 100, 50]]], np.uint16)
    valid = dn != 0
    changed = radiometry.apply(dn, np.full(dn.shape, -1, np.float32), valid, nodata=0)
    np.testing.assert_array_equal(changed, [[[0, 1, 1]]])


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 255), ("uint16", 65535), ("int16", 32767)])
def test_nodata_at_the_upper_end_is_avoided_downwards(dtype, nodata):
    dn = np.array([[[nodata, 100, 50]]], dtype)
    change = np.full(dn.shape, 2, np.float32)
    changed = Radiometry((0,), (nodata,)).apply(dn, change, dn != nodata, nodata=nodata)
    assert changed.dtype == dn.dtype
    np.testing.assert_array_equal(changed, [[[nodata, nodata - 1, nodata - 1]]])


@pytest.mark.parametrize(("dtype", "huge"), [("float32", 3e38), ("float64", 1e300)])
def test_a_valid_pixel_is_kept_where_the_dtype_cannot_hold_its_change(dtype, huge):
    dn = np.array([[[huge, -huge]]], dtype)
    changed = Radiometry((-huge,), (huge,)).apply(dn, np.ones(dn.shape, np.float32))
    assert np.isfinite(changed).all()
    assert changed[0, 0, 0] == dn[0, 0, 0]


def test_nothing_invalid_reaches_a_network():
    radiometry = Radiometry((0,), (1,))
    dn = np.array([[[np.nan, 0.5, np.inf], [0.25, -9999, 0.75]]], np.float32)
    valid = np.isfinite(dn) & (dn != -9999)
    x = radiometry.to_model(dn, valid)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x[0, 0, 1], 0)
    assert set(x.ravel()) <= {0.0, -0.5, 0.5}


def test_a_band_without_a_valid_pixel_is_filled_with_the_middle():
    filled = fill_invalid(np.full((1, 2, 2), np.nan, np.float32), np.zeros((1, 2, 2), bool))
    np.testing.assert_array_equal(filled, 0)


@pytest.mark.parametrize(
    ("low", "high"), [((1,), (1,)), ((2,), (1,)), ((np.nan,), (1,)), ((0,), (1, 2)), ((), ())]
)
def test_a_scaling_that_cannot_be_is_refused(low, high):
    with pytest.raises(ValueError, match="scaling needs"):
        Radiometry(low, high)


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
    return fit_radiometry(windows.dtype, len(windows), windows, np.ones(windows.shape, bool))


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
    found = fit_radiometry(holed.dtype, 4, holed, valid)
    expected = fitted(windows[..., 5:, :])
    np.testing.assert_allclose(found.high, expected.high, rtol=0.02)
    nothing = fit_radiometry(holed.dtype, 4, holed, np.zeros_like(valid))
    assert nothing.low == (0.0,) * 4


def test_below_a_veil_there_is_room_for_darker_ground():
    rng = np.random.default_rng(0)
    ground = LAND[:, None, None, None] * rng.uniform(0.2, 1.5, (1, 2, 64, 64))
    limits = {}
    for thin in (1.0, 0.66, 0.3):  # of the ground's light comes through
        windows = (thin * ground + (1 - thin) * 3000).astype(np.uint16)
        limits[thin] = [
            fit_radiometry(windows.dtype, 4, windows, np.ones(windows.shape, bool), veiled=may_be)
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
        found = fit_radiometry(windows.dtype, 4, windows, np.ones(windows.shape, bool), veiled=True)
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
        fit_radiometry(windows.dtype, 4, windows, valid).high, expected.high, rtol=0.02
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
    found = fit_radiometry(mixed.dtype, 5, mixed, np.ones(mixed.shape, bool), white_places(names))
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


# -- the curve -----------------------------------------------------------------------------------------------

REFLECTANCE = Radiometry((300.0, 200.0, 900.0), (8000.0, 7000.0, 9000.0))


@given(arrays("float32", (3, 4, 4), elements=st.floats(900, 7000, width=32)), st.floats(-0.3, 0.3))
def test_a_change_by_a_curve_is_one_on_the_models_scale(dn, change):
    curved = REFLECTANCE.curved()
    before = curved.to_model(dn)
    wanted = before + np.float32(change)
    changed = curved.apply(dn, np.full(dn.shape, change, np.float32))
    inside = np.abs(wanted) < 1
    if abs(change) > 1e-5:
        np.testing.assert_allclose(curved.to_model(changed)[inside], wanted[inside], atol=2e-4)


def test_a_curve_keeps_the_limits_and_lightens_what_is_between():
    curved, low, high = REFLECTANCE.curved(), REFLECTANCE.low, REFLECTANCE.high
    ends = np.array([low, high], np.float32).T[:, None]
    np.testing.assert_allclose(curved.to_model(ends)[:, 0], [[-1, 1]] * 3, atol=1e-5)
    ground = np.full((3, 1, 1), 1500, np.float32)
    assert (curved.to_model(ground) > REFLECTANCE.to_model(ground) + 0.05).all()
    assert curved.black == 200 - 0.02 * 8800
    assert curved.of_bands([2]).to_model(ground[2:]) == curved.to_model(ground)[2:]


def test_no_change_goes_below_black():
    curved = REFLECTANCE.curved()
    changed = curved.apply(np.full((3, 2, 2), 1000, np.int16), np.full((3, 2, 2), -2, np.float32))
    assert (changed == np.rint(curved.black)).all()


@pytest.mark.parametrize("scaling", [REFLECTANCE, REFLECTANCE.curved()])
def test_a_deviation_is_that_of_small_changes(scaling):
    dn = np.linspace(1000, 6900, 48).reshape(3, 4, 4).astype(np.float32)
    found = scaling.deviation(np.full(dn.shape, 1e-6, np.float32), dn)
    steps = scaling.apply(dn.astype(np.float64), np.full(dn.shape, 1e-3, np.float32)) - dn
    np.testing.assert_allclose(found[0], np.sqrt(np.square(steps).mean(axis=0)), rtol=2e-3)


def test_a_dead_band_leaves_the_map_as_it_is():
    dead = Radiometry((7000.0, 999.5), (15000.0, 1000.5))
    assert dead.curved() == dead


@pytest.mark.parametrize(("gamma", "black"), [(0, 0), (1.5, 0), (0.5, 200), (float("nan"), 0)])
def test_a_curve_that_cannot_be_is_refused(gamma, black):
    with pytest.raises(ValueError, match="a curve needs a gamma in"):
        Radiometry((200.0,), (900.0,), gamma, black)
