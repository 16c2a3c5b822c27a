"""Parse ``--mask-values``: the values of a mask that are cloud."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from decr_scene.models.arrays import Bool, Pixels
from decr_scene.pipeline.errors import OptionError

_BYTES = np.arange(256, dtype=np.uint8)
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")
_BITS = re.compile(r"bits?(\d+)(?:-(\d+))?", re.IGNORECASE)
_BAND = re.compile(r"(\d+):(.+)")
_EXPECTED = (
    "expected values, ranges or bits, such as 3,8-10 or bit3,bit4, after the band if there are several: 6:1"
)


@dataclass(frozen=True)
class Values:
    """A set of values: ranges, and values with certain bits set.

    Args:
        ranges: Least and greatest value of each.
        bits: Bit masks; a value with all bits of one of them set is in the set, too.
    """

    ranges: tuple[tuple[float, float], ...] = ()
    bits: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Values:
        """Read ``3,8-10`` or ``bit3,bit4``, where ``bit1-4`` is any of four bits.

        Raises:
            OptionError: It is something else.
        """
        ranges, bits = [], []
        for word in text.replace(" ", "").split(","):
            if match := _BITS.fullmatch(word):
                first, last = int(match[1]), int(match[2] or match[1])
                if not first <= last < 32:
                    raise OptionError(
                        f"mask_values has the bits {word}, expected two of 0 to 31, the lower first"
                    )
                bits += [1 << bit for bit in range(first, last + 1)]
            elif match := _RANGE.fullmatch(word):
                low, high = float(match[1]), float(match[2] or match[1])
                if low > high:
                    raise OptionError(f"mask_values has the range {word}, expected the lower value first")
                ranges.append((low, high))
            else:
                raise OptionError(f"mask_values is {text!r}, {_EXPECTED}")
        return cls(tuple(ranges), tuple(bits))

    def hold(self, values: Pixels) -> Bool:
        """Return where values are in the set, same shape.

        NaN never is.
        """
        if values.dtype == np.uint8 and values.size > _BYTES.size:
            return self.hold(_BYTES)[values]
        held = np.zeros(values.shape, bool)
        for low, high in self.ranges:
            held |= (values >= low) & (values <= high)
        if self.bits:
            whole = np.asarray(np.nan_to_num(values), np.int64)
            for bits in self.bits:
                held |= (whole & bits) == bits
        return held


@dataclass(frozen=True)
class Rule:
    """How to read cloud from a mask: its bands, and which of their values.

    Args:
        bands: 1-based; a pixel that is cloud in one of them is cloud.
        values: The values that are cloud there.
        name: Of the convention, for messages and the report.
    """

    bands: tuple[int, ...]
    values: Values
    name: str

    @classmethod
    def parse(cls, text: str) -> tuple[int | None, Values]:
        """Return the band, if there is one, and the values of ``--mask-values``.

        Raises:
            OptionError: It is something else.
        """
        if match := _BAND.fullmatch(text.strip()):
            return int(match[1]), Values.parse(match[2])
        return None, Values.parse(text)


CLOUD = Values(((-math.inf, -0.5), (0.5, math.inf)))
"""Classes that are not 0, and probabilities from a half on."""

OWN = Rule((1,), CLOUD, "0 clear, else cloud; of probabilities, those from a half on")
