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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NO GLIBC HERE: what is kept is asked of it")
def test_layers_do_not_have_their_memory_mapped_anew_in_a_worker_of_dask(tmp_path: Path) -> None:
    """Dask starts workers so that glibc gives back what is freed: 30000 faults a step for a tile."""
    env = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(
        [sys.executable, "-c", SAMPLED], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 3000
