import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLED = """
import resource
import torch
from decr_scene.models.model import load_model

model = load_model("default", device="cpu", precision="fp32")
tile = torch.zeros(1, 4, 256, 256)
for _ in range(2):
    model.sample(tile, reference=tile - 1, steps=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
model.sample(tile, reference=tile - 1, steps=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

HEAPS = """
import ctypes
import sys
import threading
from decr_scene.pipeline.__main__ import main

sys.argv = ["decr-scene", "--version"]
try:
    main()
except SystemExit:
    pass
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
at_once = threading.Barrier(8)
def take() -> None:
    at_once.wait()
    libc.malloc(1000)
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="NO GLIBC HERE: what is kept is asked of it"
)


@needs_glibc
@pytest.mark.parametrize(("told", "heaps"), [({}, {1}), ({"MALLOC_ARENA_MAX": "3"}, {2, 3})])
def test_the_program_has_one_heap(told: dict[str, str], heaps: set[int], tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | told
    found = subprocess.run(
        [sys.executable, "-c", HEAPS], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("<heap nr=") in heaps


@needs_glibc
def test_layers_do_not_have_their_memory_mapped_anew_in_a_worker_of_dask(tmp_path: Path) -> None:
    """Dask starts workers so that glibc gives back what is freed: 30000 faults a step for a tile."""
    env = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(
        [sys.executable, "-c", SAMPLED], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 3000
