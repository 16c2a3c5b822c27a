"""Real cloud and simulated cloud beside one another, by figures and on one sheet.

    python tests/benchmarks/real_cloud.py DATA [SHEET.png]

The sheet has what may be shown: Sentinel-2 (SEN12MS-CR, CC BY 4.0) and clouds drawn over NAIP (CC BY 4.0).

For each pair of a cloudy and a clear image: how much of the clear image's local contrast is left (what is
finer than 4 px), how uneven the cloudy image is at low frequencies beside the clear one (spread of what is
coarser than 32 px, DN of 255), how far the bands of what was added lie apart, and the slope of its power
spectrum.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from scipy import ndimage

from decr_scene.models.clouds.simulate import CloudRecipe, simulate
from decr_scene.models.clouds.veils import VeilRecipe, veiled

RGB = ("red", "green", "blue")
FINE, COARSE = 4, 32
"""Standard deviations of the smoothing that parts fine from coarse, px."""

REAL = {
    "real: Jilin-1, thin and thick": "pairs/cuhk_cr/test",
    "real: RICE1": "pairs/rice1_256/train",
    "real: T-Cloud": "pairs/tcloud/train",
    "real: Sen2_MTC": "pairs/sen2_mtc/train",
    "real: SEN12MS-CR": "pairs4/sen12mscr/train",
    "real: SEN12MS-CR-TS": "pairs4/sen12mscr_ts/train",
}
CHIPS = "clear4_chips/naip_0p6m/train"
SHOWN, SIDE = 6, 180
OPEN = ("SEN12MS", "simulated")
"""Names that the sheet shows, and its layout."""


def picture(path: Path) -> np.ndarray:
    """An image as red, green and blue, ``(3, H, W)`` from 0 to 255; reflectance from 0 to 0.5."""
    if path.suffix != ".tif":
        return np.moveaxis(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32), -1, 0)
    with rasterio.open(path) as dataset:
        if dataset.dtypes[0] == "uint8":
            return dataset.read((1, 2, 3)).astype(np.float32)
        return dataset.read((3, 2, 1)).astype(np.float32) * (255 / 5000)


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (0, sigma, sigma))


def figures(cloudy: np.ndarray, clear: np.ndarray) -> list[float]:
    """Contrast kept, spread of the cloudy and of the clear image, bands apart, slope of the spectrum."""
    fine = [image - smoothed(image, FINE) for image in (cloudy, clear)]
    spread = [float(smoothed(image, COARSE).std(axis=(1, 2)).mean()) for image in (cloudy, clear)]
    added = smoothed(cloudy - clear, 2)
    apart = float(np.ptp(added.mean(axis=(1, 2))))
    return [float(fine[0].std() / fine[1].std()), *spread, apart, slope(added.mean(axis=0))]


def slope(field: np.ndarray) -> float:
    """Exponent of the power's fall between 1/128 and 1/8 of a pixel."""
    side = min(field.shape)
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    power = np.abs(np.fft.fft2((field[:side, :side] - field.mean()) * window)) ** 2
    along = np.fft.fftfreq(side)
    radius = np.hypot(along[:, None], along[None, :])
    used = (radius > 1 / 128) & (radius < 1 / 8)
    return -float(np.polyfit(np.log(radius[used]), np.log(power[used] + 1e-9), 1)[0])


def real_pairs(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in sorted((folder / "cloudy").iterdir()):
        yield picture(path), picture(next((folder / "clear").glob(f"{path.stem}.*")))


def simulated_pairs(kind: str, folder: Path, count: int = 40) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    for path in rng.permutation(sorted(folder.iterdir()))[:count]:
        clear = picture(path) / 127.5 - 1
        if kind == "veil":
            cloudy = veiled(clear, RGB, rng, VeilRecipe()).image
        else:
            cloudy = simulate(clear, RGB, rng, CloudRecipe(scale=(40, 1000), finest=(2, 20))).cloudy
        yield (cloudy + 1) * 127.5, (clear + 1) * 127.5


def main(data: Path, sheet: Path | None) -> None:
    """Print the table; draw the sheet if one is named."""
    sources = {name: list(real_pairs(data / folder)) for name, folder in REAL.items()}
    sources |= {f"simulated: {kind}": list(simulated_pairs(kind, data / CHIPS)) for kind in ("veil", "cloud")}
    print(f"{'':32} pairs  contrast   spread  (clear)   bands apart   slope")
    for name, pairs in sources.items():
        rows = np.array([figures(*pair) for pair in pairs])
        low, middle, high = np.quantile(rows[:, 0], [0.1, 0.5, 0.9])
        rest = np.median(rows[:, 1:], axis=0)
        print(
            f"{name:32} {len(pairs):5}  {low:.2f} {middle:.2f} {high:.2f}  "
            f"{rest[0]:6.1f}  ({rest[1]:5.1f})  {rest[2]:10.1f}  {rest[3]:8.1f}"
        )
    if sheet is not None:
        shown = [pairs for name, pairs in sources.items() if any(word in name for word in OPEN)]
        rows = [_row([cloudy for cloudy, _ in pairs][:SHOWN]) for pairs in shown]
        Image.fromarray(np.concatenate(rows)).save(sheet)


def _row(images: list[np.ndarray]) -> np.ndarray:
    cells = [np.moveaxis(image[:, :SIDE, :SIDE], 0, -1).clip(0, 255).astype(np.uint8) for image in images]
    cells += [np.full((SIDE, SIDE, 3), 255, np.uint8)] * (SHOWN - len(cells))
    return np.concatenate(cells, axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
