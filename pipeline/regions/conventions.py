"""What the values of a mask mean: the conventions of those who make masks, in one table.

A convention is told by the name of the file or of its band, and only if the values that the mask has are
possible in it. A mask that could be several, or none, is refused: a wrong guess repaints clear ground.

The classes and bits are those of the makers' own handbooks: Planet's Imagery Product Specifications, the
Sentinel-2 Products Specification, the Data Format Control Books of Landsat Collection 1 and 2, the HLS User
Guide, and the texts that come with Fmask, python-fmask and MAJA.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from decr_scene.pipeline.errors import MaskError
from decr_scene.pipeline.regions.scan import Found
from decr_scene.pipeline.regions.values import CLOUD, OWN, Rule, Values

HINT = "say which values are cloud with --mask-values, such as 3,8-10 or bit3,bit4"


@dataclass(frozen=True)
class Convention:
    """How somebody writes masks.

    Args:
        name: What people call it.
        names: Matches the names of files or bands, lower case.
        cloud: What is cloud, shadow or haze, for `Values.parse`; what it cannot say is in ``fields``. Of
            several bands: whatever is not 0.
        possible: Whether all values of a band can be of it.
        bands: Where to look, 1-based.
        count: How many bands it has.
        fields: Bits that must all be set, as masks.
    """

    name: str
    names: str
    cloud: str
    possible: Callable[[Found], bool] = lambda found: True
    bands: tuple[int, ...] = (1,)
    count: int = 1
    fields: tuple[int, ...] = ()

    @property
    def rule(self) -> Rule:
        """The same, for reading."""
        if self.count > 1:
            told = f"{self.name}, cloud is what bands {', '.join(map(str, self.bands))} mark"
            return Rule(self.bands, CLOUD, told)
        values = Values.parse(self.cloud)
        told = f"{self.name}, cloud is {self.cloud}{' and high confidences' if self.fields else ''}"
        return Rule(self.bands, Values(values.ranges, (*values.bits, *self.fields)), told)


def _only(text: str) -> Callable[[Found], bool]:
    """All values are some, and they are not those that everybody's masks of cloud and no cloud have."""

    def possible(found: Found) -> bool:
        binary = set(found.values or ()) in ({0, 1}, {0, 255}, {1, 255})
        return not binary and _holds_only(text, found)

    return possible


def _bits(least: int, fields: Sequence[int] = ()) -> Callable[[Found], bool]:
    """All values but those of the fill, 0 and 1, are at least so much, and no two-bit field of them is 0."""

    def possible(found: Found) -> bool:
        seen = [value for value in found.values or () if value not in (0, 1)]
        filled = all(value >> place & 3 for value in seen for place in fields)
        return bool(seen) and filled and min(seen) >= least

    return possible


def _bytes(found: Found) -> bool:
    return _holds_only("0-255", found)


def _holds_only(text: str, found: Found) -> bool:
    return found.values is not None and bool(Values.parse(text).hold(np.array(found.values)).all())


def _fmask(found: Found) -> bool:
    """Classes from 0 on; python-fmask begins with 1."""
    of_python = found.nodata == 0 or 5 in (found.values or ())
    told = found.nodata == 255 or bool({0, 255} & set(found.values or ()))
    return _only("0-4,255")(found) and told and not of_python


def _python_fmask(found: Found) -> bool:
    return _only("0-5")(found) and (found.nodata == 0 or 5 in (found.values or ()))


CONVENTIONS = (
    Convention("Planet UDM2", "udm2", "", bands=(3, 4, 5, 6), count=8),
    Convention("Planet UDM", "udm", "bit1", _bytes),
    Convention("Sentinel-2 SCL", "scl|scene[ _]classification([ _]map)?", "3,8-10", _only("0-11")),
    Convention("Sentinel-2 cloud probability", "(msk_)?cldprb", "50-100", _only("0-100")),
    Convention("Sentinel-2 QA60", "qa60", "bit10,bit11", _only("0,1024,2048,3072")),
    Convention("Sentinel-2 MSK_CLASSI", "msk_classi", "", bands=(1, 2), count=3),
    Convention("MAJA CLM", "clm", "1-255", _bytes),
    Convention("Landsat QA_PIXEL", "qa_pixel", "bit1-4", _bits(5376, (8, 10, 12))),
    Convention("Landsat BQA", "bqa", "bit4", _bits(672, (5, 7, 9)), fields=(3 << 7, 3 << 11)),
    Convention("Landsat pixel_qa", "pixel_qa", "bit3,bit5", _bits(66, (6,)), fields=(3 << 8,)),
    Convention("HLS Fmask", "hls.*fmask", "bit0-3", _bytes),
    Convention("Fmask", "c?fmask4?", "2,4", _fmask),
    Convention("python-fmask", "fmask", "2,3", _python_fmask),
    Convention("Landsat 8 Biome", "fixedmask", "64,192,255", _only("0,64,128,192,255")),
)
"""In the order in which they are tried."""

_CLOUDY = {"cloud", "clouds", "shadow", "shadows", "haze", "cirrus", "cloudshadow", "cloudy"}
_NOT_CLOUDY = {"free", "no", "not", "non", "without", "height", "type", "top", "base", "distance"}
_NOT_CLOUDY |= {"confidence", "clear"}
_QA_PIXEL = next(each for each in CONVENTIONS if each.name == "Landsat QA_PIXEL")


def rule_of(source: Any, name: str, values_of: Callable[[int], Found], chosen: str | None) -> Rule:
    """Say where an open mask has cloud.

    Args:
        source: The raster.
        name: Its file's.
        values_of: What a band, 1-based, has within the scene.
        chosen: As ``--mask-values``; ``None``: as the mask itself tells.

    Raises:
        MaskError: Nobody can tell.
    """
    bands = [i for i in source.indexes if source.colorinterp[i - 1] is not ColorInterp.alpha]
    names = [(source.descriptions[i - 1] or "").lower() for i in bands]
    if chosen is not None:
        return _chosen(chosen, bands, source, name)
    text = " ".join([name.replace("\\", "/").rpartition("/")[2].lower(), *(names if len(bands) == 1 else ())])
    candidates = [each for each in CONVENTIONS if _is_named(each, text)]
    if len(bands) > 1:
        return _layered(candidates, names, bands, name, values_of)
    return _classed(candidates, names[0], name, bands[0], values_of(bands[0]))


def _is_named(convention: Convention, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9])(?:{convention.names})(?![a-z0-9])", text) is not None


def _chosen(chosen: str, bands: Sequence[int], source: Any, name: str) -> Rule:
    band, values = Rule.parse(chosen)
    if band is None and len(bands) > 1:
        raise MaskError(
            f"mask {name} has {_count(bands, source.descriptions)}, and --mask-values {chosen} names none: "
            f"name it first, such as --mask-values {bands[-1]}:{chosen}"
        )
    if band is not None and band not in source.indexes:
        raise MaskError(
            f"mask {name} has no band {band} (--mask-values {chosen}), expected one of 1 to {source.count}"
        )
    band = band or bands[0]
    if values.bits and np.dtype(source.dtypes[band - 1]).kind == "f":
        raise MaskError(
            f"mask {name} has {source.dtypes[band - 1]} pixels, which have no bits: name values or ranges"
        )
    nodata = source.nodatavals[band - 1]
    if nodata is not None and values.hold(np.array([nodata]))[0]:
        raise MaskError(
            f"mask {name} has {nodata:g} for nodata, which --mask-values {chosen} calls cloud: "
            "leave it out, or take the nodata value off with gdal_edit.py -unsetnodata"
        )
    return Rule((band,), values, f"cloud is {chosen}, as --mask-values says")


def _layered(
    candidates: Sequence[Convention],
    names: Sequence[str],
    bands: Sequence[int],
    name: str,
    values_of: Callable[[int], Found],
) -> Rule:
    """Of several bands: by their names, or by that of the file."""
    fitting = [each for each in candidates if each.count == len(bands)]
    cloudy = tuple(band for band, text in zip(bands, names, strict=True) if _is_cloudy(text))
    if cloudy and all(names):
        told = ", ".join(names[bands.index(band)] for band in cloudy)
        rule = Rule(cloudy, CLOUD, f"bands of their own, cloud is in {told}")
    elif fitting and not any(names):
        rule = fitting[0].rule
    else:
        raise MaskError(
            f"mask {name} has {_count(bands, names)}, expected one, or bands whose names say which is cloud: "
            f"name the band and its cloudy values, such as --mask-values {bands[-1]}:1"
        )
    for band in rule.bands:
        if (trouble := _trouble(values_of(band))) is not None:
            raise MaskError(
                f"mask {name} has {trouble} in band {band}, expected 0 and 1: {HINT}, after the band"
            )
    return rule


def _classed(candidates: Sequence[Convention], described: str, name: str, band: int, found: Found) -> Rule:
    """Of one band: by its name or the file's, and by its values."""
    of_clear = "clear" in re.split(r"[^a-z]+", described)
    if found.values == (0,) and not of_clear:
        return Rule((band,), CLOUD, OWN.name)
    for each in candidates:
        if each.count == 1 and each.possible(found):
            return Rule((band,), each.rule.values, each.rule.name)
    if candidates:
        raise MaskError(
            f"mask {name} is named like {candidates[0].name}, which has {_bands(candidates[0].count)} of "
            f"other values, and has one of {found.told()}: {HINT}"
        )
    if _QA_PIXEL.possible(found):
        return Rule((band,), _QA_PIXEL.rule.values, _QA_PIXEL.rule.name)
    if of_clear and (found.values or (9,))[-1] in (0, 1, 255):
        return Rule((band,), Values(((0, 0),)), "clear ground, cloud is 0")
    if (trouble := _trouble(found)) is not None:
        raise MaskError(f"mask {name} has {trouble}, expected 0 for clear and another for cloud: {HINT}")
    return Rule((band,), CLOUD, OWN.name)


def _trouble(found: Found) -> str | None:
    """What keeps values from being 0 for clear and others for cloud, or probabilities; ``None``: nothing."""
    if found.fractions and found.low >= 0 and found.high <= 1:
        return None
    values = set(found.values) if found.values is not None else None
    if values is None:
        return found.told()
    few = len(values - {0}) <= 1 and (0 in values or values <= {-1, 1, 100, 255, 65535})
    return None if few or (0 in values and values <= {0, 1, 2, 3}) else found.told()


def _is_cloudy(text: str) -> bool:
    words = set(re.split(r"[^a-z]+", text))
    return bool(words & _CLOUDY) and not words & _NOT_CLOUDY


def _count(bands: Sequence[int], names: Sequence[str | None]) -> str:
    told = ", ".join(text for text in names if text)
    return f"{len(bands)} bands{f' ({told})' if told else ''}"


def _bands(count: int) -> str:
    return f"{count} bands" if count > 1 else "one band"
