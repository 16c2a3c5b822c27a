"""How QGIS shows a result: its layer style, a ``.qml`` of the raster's own name that it loads by itself.

The right bands for red, green and blue, with the limits of the output: those of a scene under cloud would
show what is without as black. Of bands with scale and offset QGIS shows values, not digital numbers, so that
limits, colour tables and transparency are of those. The classes of the provenance by name, and the
uncertainty from pale to dark.
Written for QGIS 3.22 and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from decr_scene.pipeline.inputs.bands import display_bands
from decr_scene.pipeline.outputs.side_file import FinishedRun, SideDocument
from decr_scene.pipeline.raster.scene import RasterioScene
from decr_scene.pipeline.restoration.provenance import COLORS, NAMES
from decr_scene.pipeline.tiling.grid import Span, reduced_shape

SIDE = 1024
"""Greatest side of the read that the limits are taken from, px: the whole scene or an overview of it."""

WINDOWS, WINDOW = 4, 256
"""Windows a side, spread over a scene without overviews, and their side, px."""

STRETCH = (2.0, 98.0)
"""Percentiles of the valid pixels of the output that become black and white, as QGIS's own cumulative cut."""

RAMP = ((255, 255, 229), (254, 217, 142), (236, 112, 20), (140, 45, 4))
"""``(red, green, blue)`` of the uncertainty, from none to much."""

OPAQUE = (255.0, 65535.0)
"""Values of an alpha band that QGIS draws as opaque: it takes a 255th of any for the opacity, modulo 256."""

_VERSION = "3.22.16-Białowieża"


class Style(SideDocument):
    """The style of the output."""

    role = "style"
    ending = ".qml"

    def write(self, run: FinishedRun, path: Path) -> None:
        """Write the bands for red, green and blue, with the limits of the output."""
        path.write_text(_document(_scene_renderer(run)), "utf-8")


class ProvenanceStyle(SideDocument):
    """The style of the provenance."""

    role = "provenance_style"
    ending = "_provenance.qml"

    def write(self, run: FinishedRun, path: Path) -> None:
        """Write the classes by name and colour."""
        classes = list(zip(range(len(NAMES)), NAMES, COLORS, strict=True))
        path.write_text(_document(_paletted(classes)), "utf-8")


class UncertaintyStyle(SideDocument):
    """The style of the uncertainty."""

    role = "uncertainty_style"
    ending = "_uncertainty.qml"
    option = "uncertainty"

    def write(self, run: FinishedRun, path: Path) -> None:
        """Write a ramp from 0 to what the `STRETCH` of the pixels that changed has."""
        with RasterioScene.open(run.paths["uncertainty"]) as raster:
            (values,) = samples_of(raster, [1])
        _, high = _limits(values[values > 0])
        path.write_text(_document(_ramp(high)), "utf-8")


def limits(scene: RasterioScene, bands: Sequence[int]) -> list[tuple[float, float]]:
    """Find the percentiles `STRETCH` of some bands' (1-based) valid pixels, from a sample of the scene."""
    return [_limits(values) for values in samples_of(scene, bands)]


def samples_of(scene: RasterioScene, bands: Sequence[int]) -> list[NDArray[Any]]:
    """Sample the valid pixels of some bands (1-based) of a scene."""
    with scene.dataset() as dataset:
        coarse = max(scene.shape) <= SIDE or bool(dataset.overviews(1))
    samples = [_overview(scene, bands)] if coarse else []
    for span in [] if coarse else _lattice(scene.shape):
        pixels = scene.read(span.window)
        chosen = [band - 1 for band in bands]
        samples.append((pixels[chosen], scene.valid(span.window, pixels)[chosen]))
    return [np.concatenate([pixels[n][valid[n]] for pixels, valid in samples]) for n in range(len(bands))]


def _overview(scene: RasterioScene, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    pixels, valid = scene.decimated(reduced_shape(scene.shape, SIDE))
    chosen = [band - 1 for band in bands]
    return pixels[chosen], valid[chosen]


def _lattice(shape: tuple[int, int]) -> list[Span]:
    """Spread windows over a scene, each beginning where a block is likely to."""
    starts = [
        sorted({int(v) // WINDOW * WINDOW for v in np.linspace(0, max(0, side - WINDOW), WINDOWS)})
        for side in shape
    ]
    whole = Span(0, 0, *shape)
    return [Span(row, col, WINDOW, WINDOW) & whole for row in starts[0] for col in starts[1]]


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, STRETCH))
    return (low, high) if high > low else (low, low + 1)


def _scene_renderer(run: FinishedRun) -> ET.Element:
    palette, bands = _palette(run.scene), display_bands(run.bands)
    with RasterioScene.open(run.output) as output:
        alpha = _alpha(output, run.bands)
        if palette:
            unit = _unit(output, 1)
            classes = [(_shown(value, unit), str(value), color) for value, color in palette.items()]
            return _paletted(classes, alpha)
        stretches = _as_shown(output, bands, limits(output, bands))
    common = {"opacity": "1", "alphaBand": str(alpha), "nodataColor": ""}
    if len(bands) == 1:
        renderer = ET.Element(
            "rasterrenderer",
            {"type": "singlebandgray", "grayBand": str(bands[0]), "gradient": "BlackToWhite", **common},
        )
        _add_origin(renderer)
        _add_stretch(renderer, "contrastEnhancement", stretches[0])
        return renderer
    colors = ("red", "green", "blue")
    chosen = {f"{color}Band": str(band) for color, band in zip(colors, bands, strict=True)}
    renderer = ET.Element("rasterrenderer", {"type": "multibandcolor", **chosen, **common})
    _add_origin(renderer)
    for color, stretch in zip(colors, stretches, strict=True):
        _add_stretch(renderer, f"{color}ContrastEnhancement", stretch)
    return renderer


def _as_shown(
    scene: RasterioScene, bands: Sequence[int], stretches: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Convert limits of digital numbers to values as QGIS shows them, by each band's scale and offset.

    A scale of 0 is none to QGIS, and of one by which values are not finite it shows nothing.
    """
    shown = []
    for stretch, (scale, offset) in zip(stretches, [_unit(scene, band) for band in bands], strict=True):
        low, high = sorted(value * scale + offset for value in stretch)  # a scale may be negative
        is_shown = scale != 0 and np.isfinite([low, high]).all()
        shown.append((low, high) if is_shown else stretch)
    return shown


def _unit(scene: RasterioScene, band: int) -> tuple[float, float]:
    """Return scale and offset of a band."""
    with scene.dataset() as dataset:
        return dataset.scales[band - 1], dataset.offsets[band - 1]


def _shown(value: float, unit: tuple[float, float]) -> float:
    """Convert a digital number to the very value that QGIS has: of 32 bits, if a scale is declared."""
    scale, offset = unit
    with np.errstate(over="ignore"):
        shown = float(np.float32(value * scale + offset))
    return value if unit == (1, 0) or scale == 0 or not np.isfinite(shown) else shown


def _alpha(scene: RasterioScene, names: Sequence[str]) -> int:
    """Return the alpha band (1-based), -1 if there is none, or where QGIS would not draw it as it is.

    By a scale it would hide all that is opaque. What is transparent is drawn then, as black mostly: to call a
    colour transparent does not do, which versions of QGIS compare before or after they stretch it.
    """
    if "alpha" not in names:
        return -1
    band = list(names).index("alpha") + 1
    unit = _unit(scene, band)
    if scene.dtype == np.uint8 and unit == (1, 0):
        return band
    (values,) = samples_of(scene, [band])
    opaque = values[values != 0]
    is_known = not opaque.size or _shown(float(np.median(opaque)), unit) in OPAQUE
    return band if is_known and _shown(0, unit) == 0 else -1


def _add_origin(renderer: ET.Element) -> None:
    """Mark the limits as given, so that QGIS fits none."""
    ET.SubElement(renderer, "rasterTransparency")
    origin = ET.SubElement(renderer, "minMaxOrigin")
    values = {
        **{"limits": "None", "extent": "WholeRaster", "statAccuracy": "Estimated"},
        **{"cumulativeCutLower": "0.02", "cumulativeCutUpper": "0.98", "stdDevFactor": "2"},
    }
    for name, value in values.items():
        ET.SubElement(origin, name).text = value


def _add_stretch(renderer: ET.Element, name: str, stretch: tuple[float, float]) -> None:
    enhancement = ET.SubElement(renderer, name)
    ET.SubElement(enhancement, "minValue").text = f"{stretch[0]:.10g}"
    ET.SubElement(enhancement, "maxValue").text = f"{stretch[1]:.10g}"
    ET.SubElement(enhancement, "algorithm").text = "StretchToMinimumMaximum"


def _palette(scene: RasterioScene) -> dict[int, tuple[int, int, int, int]]:
    """Return the colour table of the first band, if it has one."""
    with scene.dataset() as dataset:
        if dataset.colorinterp[0] != ColorInterp.palette:
            return {}
        table: dict[int, tuple[int, int, int, int]] = dataset.colormap(1)
    return table


def _paletted(
    classes: Iterable[tuple[float, str, tuple[int, int, int, int]]], alpha_band: int = -1
) -> ET.Element:
    """Make a legend of values, each with its name and colour; ``alpha_band`` is 1-based, -1: none."""
    fixed = {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": str(alpha_band), "nodataColor": ""}
    renderer = ET.Element("rasterrenderer", fixed)
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, name, (red, green, blue, alpha) in classes:
        entry = {"value": f"{value:.17g}", "label": name, "color": f"#{red:02x}{green:02x}{blue:02x}"}
        ET.SubElement(palette, "paletteEntry", entry | {"alpha": str(alpha)})
    return renderer


def _ramp(high: float) -> ET.Element:
    """Make a ramp of one band in the colours of `RAMP`, from 0 to a value."""
    fixed = {"type": "singlebandpseudocolor", "band": "1", "opacity": "1", "alphaBand": "-1"}
    ends = {"nodataColor": "", "classificationMin": "0", "classificationMax": f"{high:.10g}"}
    renderer = ET.Element("rasterrenderer", fixed | ends)
    _add_origin(renderer)
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader")
    kind = {"colorRampType": "INTERPOLATED", "classificationMode": "1", "clip": "0"}
    shader.attrib |= kind | {"minimumValue": "0", "maximumValue": ends["classificationMax"]}
    for number, (red, green, blue) in enumerate(RAMP):
        value = high * number / (len(RAMP) - 1)
        color = {"color": f"#{red:02x}{green:02x}{blue:02x}", "alpha": "255"}
        ET.SubElement(shader, "item", {"value": f"{value:.10g}", "label": f"{value:.4g}"} | color)
    return renderer


def _document(renderer: ET.Element) -> str:
    """Make a whole style: the renderer in a pipe that changes nothing else."""
    root = ET.Element("qgis", {"version": _VERSION, "styleCategories": "Symbology|Rendering"})
    pipe = ET.SubElement(root, "pipe")
    provider = ET.SubElement(pipe, "provider")
    plain = {"enabled": "false", "zoomedInResamplingMethod": "nearestNeighbour"}
    plain |= {"zoomedOutResamplingMethod": "nearestNeighbour", "maxOversampling": "2"}
    ET.SubElement(provider, "resampling", plain)
    pipe.append(renderer)
    ET.SubElement(pipe, "brightnesscontrast", {"brightness": "0", "contrast": "0", "gamma": "1"})
    ET.SubElement(pipe, "huesaturation", {"saturation": "0", "grayscaleMode": "0", "colorizeOn": "0"})
    ET.SubElement(pipe, "rasterresampler", {"maxOversampling": "2"})
    ET.SubElement(pipe, "resamplingStage").text = "resamplingFilter"
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root, "  ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"
