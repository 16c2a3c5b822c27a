"""Where a model computes, and how exactly."""

import platform
import threading
from pathlib import Path

import pytest
import torch

from decr_scene.models import devices
from decr_scene.models.devices import (
    Computing,
    computing_of,
    full_fp32,
    pick_device,
    pick_precision,
    side_by_side,
)


def test_precision_is_what_the_device_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    monkeypatch.setattr(devices, "_is_amd", lambda: False)
    for feature in features:
        monkeypatch.setattr(torch.cpu, feature, lambda: False)
    assert pick_precision("auto", cpu, training=True) == pick_precision("auto", cpu) == "fp32"
    assert pick_precision("bf16", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, features[0], lambda: True)
    assert pick_precision("auto", cpu, training=True) == "bf16"
    assert pick_precision("auto", cpu) == "fp32"
    with monkeypatch.context() as patch:
        patch.setattr(devices, "_is_amd", lambda: True)
        assert pick_precision("auto", cpu) == "bf16"
        patch.setattr(torch.cpu, features[0], lambda: False)
        assert pick_precision("auto", cpu) == "fp32"
    monkeypatch.setattr(torch.cpu, features[1], lambda: True)
    assert pick_precision("auto", cpu) == "bf16"
    assert pick_precision("fp32", cpu) == "fp32"
    for feature in features:
        monkeypatch.delattr(torch.cpu, feature)
    assert pick_precision("auto", cpu, training=True) == "fp32"
    with pytest.raises(ValueError, match="precision must be auto, fp32 or bf16, got 'fp16'"):
        pick_precision("fp16", cpu)


@pytest.mark.parametrize(("vendor", "amd"), [("AuthenticAMD", True), ("GenuineIntel", False)])
@pytest.mark.parametrize("linux", [True, False])
def test_the_maker_of_the_processor_is_read(
    monkeypatch: pytest.MonkeyPatch, vendor: str, amd: bool, linux: bool
) -> None:
    def text(path: Path, **options: str) -> str:
        if not linux:
            raise FileNotFoundError(path)
        return f"processor : 0\nvendor_id : {vendor}\n"

    monkeypatch.setattr(Path, "read_text", text)
    name = "" if linux else f"AMD64 Family 25 Model 17 Stepping 1, {vendor}"
    monkeypatch.setattr(platform, "processor", lambda: name)
    devices._is_amd.cache_clear()
    try:
        assert devices._is_amd() is amd
    finally:
        devices._is_amd.cache_clear()


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="no GPU found"):
        pick_device("cuda")
    with pytest.raises(ValueError, match="device 'warp' is unknown"):
        pick_device("warp")


def with_gpus(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have torch say that there are GPUs of these names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index or 0])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


def test_a_gpu_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, "H100", "L40S")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="device cuda:2 asked for, GPUs found: 2"):
        pick_device("cuda:2")


def test_how_is_computed_is_told_as_it_turned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    version = torch.__version__.partition("+")[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert computing_of("auto", "fp32") == Computing("cpu", None, "fp32", version)
    monkeypatch.setattr(devices, "_is_amd", lambda: False)
    for amx, avx512, kind in ((True, True, "AMX"), (False, True, "AVX-512 BF16"), (False, False, "no bf16")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx512=avx512: avx512)
        assert str(computing_of("cpu", "bf16").name).startswith(kind)
        monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
        assert str(computing_of("cpu", "bf16").name).endswith(", NUMBA_DISABLE_JIT=1")
        assert computing_of("cpu", "fp32").name is None
        monkeypatch.delenv("NUMBA_DISABLE_JIT")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        patch.setattr(devices, "_is_amd", lambda: True)
        assert computing_of("cpu", "auto") == Computing("cpu", "AVX-512 BF16 of AMD", "bf16", version)
    assert computing_of("auto", "auto") == Computing("cpu", None, "fp32", version)
    with_gpus(monkeypatch, "H100", "L40S")
    assert computing_of("auto", "auto") == Computing("cuda", "H100", "bf16", version)
    assert computing_of("cuda:1", "fp32").name == "L40S"
    assert str(computing_of("cuda:1", "fp32")) == f"cuda (L40S) in fp32 with torch {version}"


def settings() -> list[object]:
    backends = torch.backends
    return [place.fp32_precision for place in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)]


def test_fp32_is_full_until_the_last_thread_is_done_with_it() -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = matmul.allow_tf32  # "none", of a fresh process, cannot be set that way: it is "ieee"
    before, entered, leave = settings(), threading.Event(), threading.Event()

    def other() -> None:
        with full_fp32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_fp32():
        thread.start()
        assert entered.wait(10)
    try:
        assert "tf32" not in settings()
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        leave.set()
        thread.join()
    assert settings() == before
    assert "tf32" in before


def test_fp32_is_full_however_tf32_was_allowed() -> None:
    conv, before = torch.backends.cudnn.conv, settings()
    conv.fp32_precision = "ieee"  # now nobody can read torch's older setting
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with full_fp32():
            assert set(settings()) == {"ieee"}
        assert settings()[2] == "tf32"
    finally:
        conv.fp32_precision, _, torch.backends.cuda.matmul.fp32_precision = before
    assert settings() == before


@pytest.mark.parametrize(
    ("count", "threads", "own"), [(3, 2, 1), (2, 5, 2), (1, 7, 4), (2, 7, 2), (3, 1, 4), (0, 4, None)]
)
def test_calls_side_by_side_share_the_threads(count: int, threads: int, own: int | None) -> None:
    before, barrier = torch.get_num_threads(), threading.Barrier(min(count, threads) or 1)
    torch.set_num_threads(4)
    try:

        def call(number: int) -> tuple[int, int]:
            if number < barrier.parties:
                barrier.wait(30)  # as many are there at the same time
            return number, torch.get_num_threads()

        assert side_by_side(call, count, threads) == [(number, own) for number in range(count)]
        assert torch.get_num_threads() == 4
        found: list[int] = []
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert found == [4]
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_side_by_side_is_raised_and_the_threads_are_as_before() -> None:
    before = torch.get_num_threads()

    def call(number: int) -> int:
        raise ValueError(f"image {number}")

    with pytest.raises(ValueError, match="image 0"):
        side_by_side(call, 4, 2)
    assert torch.get_num_threads() == before
