"""Where things lie, for tests of whatever depth."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent

GOLDEN = TESTS / "golden"
SAMPLES = ROOT / "sample_scenes"
WEIGHTS = ROOT / "models" / "weights"

SHARED = ROOT.parent / "shared" / "data"
"""Real images, where there are any: beside the checkout."""

OTHERS = ROOT.parent / "shared" / "reference" / "others"
"""Golden files and weights of other systems, where there are any: beside the checkout."""
