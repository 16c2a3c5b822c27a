import pytest

from decr_scene.models.data.pictures import display_bands


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("blue", "green", "red", "nir"), (2, 1, 0)),
        (("one", "two", "three"), (0, 1, 2)),
        (("one", "two"), (0, 0, 0)),
        (("one", "two", "alpha"), (0, 0, 0)),
        (("alpha", "one", "two", "three"), (1, 2, 3)),
        (("one", "alpha", "two", "three"), (0, 2, 3)),
        (("alpha", "one"), (1, 1, 1)),
        (("alpha",), (0, 0, 0)),
    ],
)
def test_colours_are_found_by_name_or_place_and_alpha_is_none(names, expected):
    assert display_bands(names) == expected
