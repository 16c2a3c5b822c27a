"""Texts of strangers: kept as the bytes that they are, read as they declare, never steering a terminal."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decr_scene.pipeline.inputs.text import carried, decoded, json_text, plain, readable, released, xml_root

CHINESE = "长光卫星 红"


@given(st.binary())
@example("\U0010fe80\U0010fd05".encode())
def test_whatever_is_carried_is_released_as_it_was(raw):
    assert released(carried(raw)) == raw


@given(st.text())
@example("\U0010fe80\U0010fd05")
def test_a_proper_text_is_readable_as_it_is(text):
    if not any("\udc80" <= c <= "\udfff" or c >= "\ud800" for c in text if c < "\ue000"):
        assert readable(carried(text.encode())) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"Jos\xe9", "José"), ("红red".encode("gbk"), "红red"), ("Ünüt".encode(), "Ünüt"), (b"\x80 5", "€ 5")],
)
def test_what_declares_nothing_is_read_as_what_it_may_be(raw, text):
    assert readable(carried(raw)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312", "gbk", "gb18030", "utf-16", "big5", "GB2312"])
def test_xml_is_read_as_it_declares(encoding):
    text = CHINESE if encoding != "big5" else "衛星"
    raw = f'<?xml version="1.0" encoding="{encoding}"?>\n<A><B>{text}</B></A>'.encode(encoding)
    assert xml_root(raw).findtext("B") == text


def test_a_character_beyond_what_is_declared_is_read_all_the_same():
    raw = b'<?xml version="1.0" encoding="GB2312"?><A>' + "镕".encode("gbk") + b"</A>"
    assert xml_root(raw).text == "镕"


def test_xml_with_a_byte_order_mark_or_without_a_declaration_is_read():
    assert xml_root(b"\xef\xbb\xbf\n<A>\xc3\xa9</A>").text == "é"
    assert xml_root(b'<?xml version="1.0"?><A>\xe9</A>').text == "é"
    assert xml_root(b'<?xml version="1.0" encoding="klingon"?><A>x</A>').text == "x"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "gbk"]
)
def test_json_is_read_in_any_encoding(encoding):
    assert json_text('{"a": "é"}'.encode(encoding)).startswith('{"a": "')


def test_bytes_that_nothing_explains_are_read_anyway():
    assert decoded(b"\x81\xff\x8d") == "\x81\xff\x8d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m.tif", r"a\x1b[31m.tif"),
        ("\x9b2J", r"\x9b2J"),
        ("evil\u202egpj.tif", r"evil\u202egpj.tif"),
        ("a\r\x07\x7f", r"a\x0d\x07\x7f"),
        ("b\udce9d", r"b\xe9d"),
        ("plain 蓝 ü\u3000\u00a0é", "plain 蓝 ü\u3000\u00a0é"),
    ],
)
def test_what_would_steer_a_terminal_is_spelled_out(text, shown):
    assert plain(text) == shown

    shown = plain(text)
    assert shown.replace("\n", "").replace("\t", "").isprintable() or any(c.isspace() for c in shown)
    assert not set(shown) & {chr(code) for code in [*range(9), *range(11, 32), *range(127, 160)]} or (
        set(shown) <= set(text) and "\x85" in text
    )


@given(st.text())
def test_nothing_that_steers_is_left(text):
    assert not set(plain(text)) & {chr(code) for code in [*range(9), *range(11, 32), *range(127, 160)]}
