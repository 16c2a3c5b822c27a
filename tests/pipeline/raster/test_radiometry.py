import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decr_scene.pipeline.raster import radiometry as radiometry_module
from decr_scene.pipeline.raster.radiometry import Radiometry, fill_invalid

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


def test_what_is_saturated_is_so_in_all_of_some_bands_and_nearly_counts():
    dn = np.array([[255, 250, 249, 255], [255, 250, 255, 255], [255, 255, 255, 0]], np.uint8)[:, None]
    fitted = Radiometry((20.0, 30.0, 40.0), (300.0, 290.0, 280.0), of_bytes=True).curved()
    for bands, found in (((0, 1, 2), [True, True, False, False]), ((0, 1), [True, True, False, True])):
        assert fitted.saturated(fitted.to_model(dn), bands).tolist() == [found]
    assert not Radiometry((0.0,) * 3, (255.0,) * 3).saturated(np.ones((3, 1, 4), np.float32), (0, 1)).any()
