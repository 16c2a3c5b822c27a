"""Networks of tests are tiny: a second thread costs them more than it gains.

On cores that are busy it costs tenfold, as threads wait for each other in loops.
"""

import os
from contextlib import suppress
from datetime import timedelta

# before torch is imported; programs that tests start inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

with suppress(ModuleNotFoundError):  # a machine for tests/gpu alone has no hypothesis
    from hypothesis import settings

    settings.register_profile("any machine", deadline=timedelta(seconds=2))
    settings.load_profile("any machine")
