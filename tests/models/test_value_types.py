"""TOML of any encoding that has a mark; other encodings are told."""

import codecs
import os

import pytest

from decr_scene.models.data.config import DataConfig
from decr_scene.models.value_types import check_types, read_toml_text

TEXT = "# größer\na = 1\nb = 'é'\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_toml_may_have_a_mark_and_any_ends_of_lines(encoding, end, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_toml_text(path) == TEXT


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (TEXT.encode("latin-1"), "line 1 is not in utf-8"),
        (TEXT.encode("utf-16-be"), "line 1 is not in utf-8"),
        (b"a = 1\nb = '\xe9'", "line 2 is not in utf-8"),
        ("a = 1".encode("utf-16-le"), "UTF-16 without its mark"),
        (codecs.BOM_UTF16_LE + b"a", "is not in utf-16"),
    ],
)
def test_other_encodings_are_told(raw, said, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=said):
        read_toml_text(path)


def test_a_pipe_is_no_toml(tmp_path):
    """Nobody may ever write to it; and it is read twice."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        read_toml_text(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("clear", 3, "text or none"),
        ("tint", "much", "a number"),
        ("resize", 1.5, "a whole number or none"),
        ("tone", 1, "true or false"),
        ("mean", (0.5,), "a list of 2: a number, a number or none"),
        ("scales", 2, "a list, each a number"),
        ("clouds", 1, "a table"),
        ("tint", 10**400, "a number"),
    ],
)
def test_what_is_expected_is_told_in_words(key, value, expected):
    with pytest.raises(TypeError, match=f"{key} is .*, expected {expected}$"):
        check_types(DataConfig, {key: value})
