"""Tell which values of a mask are cloud, by the conventions of those who make masks, in one table.

A convention is recognised by the name of the file or of its band, and only if the values of the mask are
possible in it. A mask that fits several, or none, is refused: a wrong guess repaints clear ground.

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
from decr_scene.pipeline.regions.mask_scan import BandValues
from decr_scene.pipeline.regions.mask_values import CLOUD, OWN, Rule, Values

HINT = "say which values are cloud with --mask-values, such as 3,8-10 or bit3,bit4"


@dataclass(frozen=True)
class Convention:
    """Values and names of the masks that one program writes.

    Args:
        name: The usual one, for messages and the report.
        names: Matches the names of files or bands, lower case.
        cloud: Values that are cloud, shadow or haze, as `Values.parse` reads them, but for ``fields``. Of
            several bands: empty, and all values but 0 are.
        possible: Whether the values of a band are all possible in it.
        bands: Those with cloud, 1-based.
        count: Number of all bands.
        fields: Bit masks; a value with all bits of one of them set is cloud, too.
    """

    name: str
    names: str
    cloud: str
    possible: Callable[[BandValues], bool] = lambda band: True
    bands: tuple[int, ...] = (1,)
    count: int = 1
    fields: tuple[int, ...] = ()

    @property
    def rule(self) -> Rule:
        """Return the bands and values to read."""
        if self.count > 1:
            name = f"{self.name}, cloud is what bands {', '.join(map(str, self.bands))} mark"
            return Rule(self.bands, CLOUD, name)
        values = Values.parse(self.cloud)
        name = f"{self.name}, cloud is {self.cloud}{' and high confidences' if self.fields else ''}"
        return Rule(self.bands, Values(values.ranges, (*values.bits, *self.fields)), name)


def _has_only(text: str) -> Callable[[BandValues], bool]:
    """Accept bands with no values but those of ``text``, unless they are those of any mask of two classes."""

    def possible(band: BandValues) -> bool:
        binary = set(band.values or ()) in ({0, 1}, {0, 255}, {1, 255})
        return not binary and _holds_only(text, band)

    return possible


def _has_bits(lowest: int, fields: Sequence[int] = ()) -> Callable[[BandValues], bool]:
    """Accept bands whose values, but for a fill of 0 and 1, are not below ``lowest``, no two-bit field 0."""

    def possible(band: BandValues) -> bool:
        valid = [value for value in band.values or () if value not in (0, 1)]
        filled = all(value >> place & 3 for value in valid for place in fields)
        return bool(valid) and filled and min(valid) >= lowest

    return possible


def _are_bytes(band: BandValues) -> bool:
    return _holds_only("0-255", band)


def _holds_only(text: str, band: BandValues) -> bool:
    return band.values is not None and bool(Values.parse(text).hold(np.array(band.values)).all())


def _is_fmask(band: BandValues) -> bool:
    """Accept classes from 0 on.

    Those of python-fmask begin with 1.
    """
    of_python = band.nodata == 0 or 5 in (band.values or ())
    has_fill = band.nodata == 255 or bool({0, 255} & set(band.values or ()))
    return _has_only("0-4,255")(band) and has_fill and not of_python


def _is_python_fmask(band: BandValues) -> bool:
    return _has_only("0-5")(band) and (band.nodata == 0 or 5 in (band.values or ()))


CONVENTIONS = (
    Convention("Planet UDM2", "udm2", "", bands=(3, 4, 5, 6), count=8),
    Convention("Planet UDM", "udm", "bit1", _are_bytes),
    Convention("Sentinel-2 SCL", "scl|scene[ _]classification([ _]map)?", "3,8-10", _has_only("0-11")),
    Convention("Sentinel-2 cloud probability", "(msk_)?cldprb", "50-100", _has_only("0-100")),
    Convention("Sentinel-2 QA60", "qa60", "bit10,bit11", _has_only("0,1024,2048,3072")),
    Convention("Sentinel-2 MSK_CLASSI", "msk_classi", "", bands=(1, 2), count=3),
    Convention("MAJA CLM", "clm", "1-255", _are_bytes),
    Convention("Landsat QA_PIXEL", "qa_pixel", "bit1-4", _has_bits(5376, (8, 10, 12))),
    Convention("Landsat BQA", "bqa", "bit4", _has_bits(672, (5, 7, 9)), fields=(3 << 7, 3 << 11)),
    Convention("Landsat pixel_qa", "pixel_qa", "bit3,bit5", _has_bits(66, (6,)), fields=(3 << 8,)),
    Convention("HLS Fmask", "hls.*fmask", "bit0-3", _are_bytes),
    Convention("Fmask", "c?fmask4?", "2,4", _is_fmask),
    Convention("python-fmask", "fmask", "2,3", _is_python_fmask),
    Convention("Landsat 8 Biome", "fixedmask", "64,192,255", _has_only("0,64,128,192,255")),
)
"""In the order in which they are tried."""

_CLOUDY = {"cloud", "clouds", "shadow", "shadows", "haze", "cirrus", "cloudshadow", "cloudy"}
_NOT_CLOUDY = {"free", "no", "not", "non", "without", "height", "type", "top", "base", "distance"}
_NOT_CLOUDY |= {"confidence", "clear"}
_QA_PIXEL = next(each for each in CONVENTIONS if each.name == "Landsat QA_PIXEL")


def rule_of(source: Any, name: str, values_of: Callable[[int], BandValues], chosen: str | None) -> Rule:
    """Choose the bands and values of an open mask that are cloud.

    Args:
        source: The raster.
        name: Of its file.
        values_of: Returns the values within the scene of a band, 1-based.
        chosen: As ``--mask-values``; ``None``: by names and values of the mask.

    Raises:
        MaskError: It fits no convention, or ``chosen`` does not fit it.
    """
    bands = [i for i in source.indexes if source.colorinterp[i - 1] is not ColorInterp.alpha]
    names = [(source.descriptions[i - 1] or "").lower() for i in bands]
    if chosen is not None:
        return _rule_of_option(chosen, bands, source, name)
    text = " ".join([name.replace("\\", "/").rpartition("/")[2].lower(), *(names if len(bands) == 1 else ())])
    candidates = [each for each in CONVENTIONS if _matches(each, text)]
    if len(bands) > 1:
        return _rule_of_bands(candidates, names, bands, name, values_of)
    return _rule_of_band(candidates, names[0], name, bands[0], values_of(bands[0]))


def _matches(convention: Convention, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9])(?:{convention.names})(?![a-z0-9])", text) is not None


def _rule_of_option(chosen: str, bands: Sequence[int], source: Any, name: str) -> Rule:
    band, values = Rule.parse(chosen)
    if band is None and len(bands) > 1:
        raise MaskError(
            f"mask {name} has {_listed(bands, source.descriptions)}, and --mask-values {chosen} names none: "
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


def _rule_of_bands(
    candidates: Sequence[Convention],
    names: Sequence[str],
    bands: Sequence[int],
    name: str,
    values_of: Callable[[int], BandValues],
) -> Rule:
    """Choose among several bands: by their names, or by that of the file."""
    of_this_count = [each for each in candidates if each.count == len(bands)]
    cloudy = tuple(band for band, text in zip(bands, names, strict=True) if _is_cloudy(text))
    if cloudy and all(names):
        listed = ", ".join(names[bands.index(band)] for band in cloudy)
        rule = Rule(cloudy, CLOUD, f"bands of their own, cloud is in {listed}")
    elif of_this_count and not any(names):
        rule = of_this_count[0].rule
    else:
        raise MaskError(
            f"mask {name} has {_listed(bands, names)}, expected one, or bands whose names say which is "
            f"cloud: name the band and its cloudy values, such as --mask-values {bands[-1]}:1"
        )
    for band in rule.bands:
        if (trouble := _misfit(values_of(band))) is not None:
            raise MaskError(
                f"mask {name} has {trouble} in band {band}, expected 0 and 1: {HINT}, after the band"
            )
    return rule


def _rule_of_band(
    candidates: Sequence[Convention], described: str, name: str, index: int, band: BandValues
) -> Rule:
    """Choose the values of a single band: by its name or the file's, and by the values it has."""
    of_clear = "clear" in re.split(r"[^a-z]+", described)
    if band.values == (0,) and not of_clear:
        return Rule((index,), CLOUD, OWN.name)
    for each in candidates:
        if each.count == 1 and each.possible(band):
            return Rule((index,), each.rule.values, each.rule.name)
    if candidates:
        raise MaskError(
            f"mask {name} is named like {candidates[0].name}, which has {_counted(candidates[0].count)} of "
            f"other values, and has one of {band.describe()}: {HINT}"
        )
    if _QA_PIXEL.possible(band):
        return Rule((index,), _QA_PIXEL.rule.values, _QA_PIXEL.rule.name)
    if of_clear and (band.values or (9,))[-1] in (0, 1, 255):
        return Rule((index,), Values(((0, 0),)), "clear ground, cloud is 0")
    if (trouble := _misfit(band)) is not None:
        raise MaskError(f"mask {name} has {trouble}, expected 0 for clear and another for cloud: {HINT}")
    return Rule((index,), CLOUD, OWN.name)


def _misfit(band: BandValues) -> str | None:
    """Describe values that are neither 0 and others for cloud nor probabilities, or return ``None``."""
    if band.fractions and band.low >= 0 and band.high <= 1:
        return None
    values = set(band.values) if band.values is not None else None
    if values is None:
        return band.describe()
    binary = len(values - {0}) <= 1 and (0 in values or values <= {-1, 1, 100, 255, 65535})
    return None if binary or (0 in values and values <= {0, 1, 2, 3}) else band.describe()


def _is_cloudy(text: str) -> bool:
    words = set(re.split(r"[^a-z]+", text))
    return bool(words & _CLOUDY) and not words & _NOT_CLOUDY


def _listed(bands: Sequence[int], names: Sequence[str | None]) -> str:
    listed = ", ".join(text for text in names if text)
    return f"{len(bands)} bands{f' ({listed})' if listed else ''}"


def _counted(count: int) -> str:
    return f"{count} bands" if count > 1 else "one band"
