"""Secrets in addresses are hidden, and an address that is signed anew is of the same file."""

import pytest

from decr_scene.pipeline.errors import OutputError, SceneReadError
from decr_scene.pipeline.inputs.addresses import (
    hide_secrets,
    last_part,
    plain_values_without_secrets,
    without_secrets,
    without_signature,
)

AMAZON = (
    "https://b.s3.amazonaws.com/a/scene.tif?versionId=7&X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=HUSH/20260101/eu/s3/aws4_request&X-Amz-Date={}&X-Amz-Security-Token=HUSH%2F%3D"
    "&X-Amz-Signature=HUSH{}"
)
GOOGLE = (
    "https://storage.googleapis.com/b/scene.tif?X-Goog-Date={}&X-Goog-Credential=HUSH&X-Goog-Signature={}"
)
CLOUDFRONT = "https://h.net/scene.tif?Expires={}&Signature=HUSH{}&Key-Pair-Id=HUSH"
AMAZON_BEFORE = "https://h/scene.tif?AWSAccessKeyId=HUSH&Expires={}&Signature=HUSH{}"
AZURE = "https://a.blob.core.windows.net/c/scene.tif?sv=2024-01-01&se={}&sr=b&sp=r&sig=HUSH%2B{}%3D"


@pytest.mark.parametrize(
    "text",
    [
        AMAZON.format(1, 2),
        f"/vsicurl/{AMAZON}",
        AZURE.format(1, 2),
        "https://host/scene.tif?token=HUSH",
        "https://host/scene.tif?a=1&access_token=HUSH&b=2",
        "https://host/scene.tif?ApiKey=HUSH",
        "https://me:HUSH@host/scene.tif",
        "https://me:HUSH@HUSH@host/scene.tif",
        "s3://HUSH:HUSH@bucket/scene.tif",
        "/vsicurl?header.Authorization=Bearer%20HUSH&url=https%3A%2F%2Fhost%2Fscene.tif%3Fsig%3DHUSH%26a%3D1",
        "http://host/my scene.tif?sig=HUSH is no web address",
        "/vsicurl?header.Authorization=Bearer HUSH&url=https://host/scene.tif",
        "/vsicurl?url=https://host/scene.tif?a=1&header.Cookie=a HUSH; b=HUSH",
        "/vsicurl?userpwd=me:HUSH&proxyuserpwd=HUSH HUSH&cookie=a=HUSH; HUSH&url=https://host/scene.tif",
        "/vsicurl?url=https%3A%2F%2Fme%3AHUSH%40host%2Fscene.tif",
        "https://me:HUSH%40host/scene.tif",
        "https://host/scene.tif?pass=HUSH&session=HUSH&sessionid=HUSH&hdnea=HUSH&hmac=HUSH",
        "https://host/scene.tif?a=1;token=HUSH;b=2",
        "https://host/scene.tif%3Fsig=HUSH",
        "https://host/scene.tif?%74oken=HUSH",
        "https://host/scene.tif#access_token=HUSH",
    ],
)
def test_no_secret_is_left_and_the_file_is_still_known(text):
    hidden = without_secrets(text)
    assert "HUSH" not in hidden
    assert "scene.tif" in hidden
    assert "***" in hidden
    assert without_secrets(hidden) == hidden
    assert without_signature(hidden) == without_signature(text)


def test_all_else_stays_as_it_is():
    told = "https://host/a.tif?day=2&sig=x: the server refuses it (HTTP 403): check the address"
    assert without_secrets(told) == told.replace("sig=x", "sig=***2d711642")
    assert without_secrets("'/vsicurl/https://h/a.tif?sig=x' is not there") == (
        "'/vsicurl/https://h/a.tif?sig=***2d711642' is not there"
    )
    for text in ("a?sig=1.tif", "me@host: a.tif", "https://host/a.tif?design=1#x", "https://host/a@b.tif"):
        assert without_secrets(text) == text
    values = {"a": ["https://h/?sig=x", 1, None], "b": ("https://h/?sig=x",)}
    assert plain_values_without_secrets(values) == {
        "a": ["https://h/?sig=***2d711642", 1, None],
        "b": ("https://h/?sig=***2d711642",),
    }


@pytest.mark.parametrize("address", [AMAZON, AZURE, GOOGLE, CLOUDFRONT, AMAZON_BEFORE])
def test_an_address_that_is_signed_anew_is_the_same(address):
    one, other = address.format("20260101", "a"), address.format("20260202", "b")
    assert without_signature(one) == without_signature(other) == without_signature(without_secrets(other))
    assert without_signature(one) != without_signature(one.replace("scene", "another"))
    assert without_signature(f"{one}&versionId=7") != without_signature(f"{one}&versionId=8")
    assert "versionId" not in one or without_signature(one.replace("=7", "=8")) != without_signature(one)


@pytest.mark.parametrize(
    "address",
    [
        "https://h/a.tif?key={}.tif",
        "https://h/a.tif?token={}&day=2",
        "https://h/a.tif?day=2;token={}",
        "https://h/a.tif?policy={}",
        "https://h/a.tif?sig={}",
        "https://h/a.tif?signature={}&expires=1",
        "https://h/a.tif?X-Amz-Date={}&token=1",
        "https://h/a.tif?token={}&X-Amz-Signature=1",
        "https://{}@h/a.tif",
        "https://{}:secret@h/a.tif",
        "/vsicurl?header.Authorization=Bearer {}&url=https://h/a.tif",
    ],
)
def test_what_is_no_known_signature_tells_two_files_apart(address):
    one, other = address.format("clear"), address.format("cloudy")
    assert without_signature(one) != without_signature(other)
    assert without_secrets(one) != without_secrets(other)
    assert without_signature(without_secrets(one)) == without_signature(one)


@pytest.mark.parametrize(
    "address", ["https://host/a.tif?se=1&day=2", "https://host/a.tif", "/vsicurl/x", "[::1"]
)
def test_an_address_without_a_signature_stands_for_itself(address):
    assert without_signature(address) == address
    assert without_signature("https://h/a.tif?X-Amz-Signature=1&se=1") == "https://h/a.tif?se=1"
    assert without_signature("https://h/a.tif?X-Amz-Signature=1") == "https://h/a.tif"


def test_the_name_is_that_of_the_file():
    assert last_part("https://me:HUSH@host") == last_part("https://host/?a=1") == ""
    assert last_part("https://host/a/my%20scene.tif?X-Amz-Credential=a/b/c") == "my scene.tif"
    assert last_part("/vsicurl/https://host/a/scene.tif?sig=x") == "scene.tif"
    assert last_part("folder/scene.tif") == last_part("folder/scene.tif/") == "scene.tif"


def test_errors_and_their_causes_tell_no_secret():
    cause = OSError("https://h/a.tif?sig=HUSH failed")
    error = SceneReadError("https://h/a.tif?sig=HUSH: no")
    error.__cause__ = cause
    hide_secrets(error)
    assert str(error).startswith("https://h/a.tif?sig=***")
    assert "HUSH" not in str(cause)
    plain = OutputError("a.tif is there")
    hide_secrets(plain)
    assert str(plain) == "a.tif is there"


def test_errors_tell_no_secret_anywhere():
    secret = "https://h/a.tif?sig=HUSH"
    error = OSError(2, "no such file", secret, None, secret)
    error.__cause__, error.__context__ = ValueError(secret), KeyError(secret)
    error.add_note(secret)
    cause, context = error.__cause__, error.__context__
    hide_secrets(error)
    for text in (str(error), *error.__notes__, str(cause), str(context), error.filename, error.filename2):
        assert "HUSH" not in text
        assert "sig=***" in text
