"""A source of training images, as a TOML describes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from decr_scene.models.clouds.simulate import CloudRecipe
from decr_scene.models.clouds.types import Range
from decr_scene.models.clouds.veils import VeilRecipe

WIDEST = 1 << 16
"""Greatest width that images are resized to, px."""

SMALLEST = 1e-4
"""Least scale that crops are drawn at."""


@dataclass(frozen=True)
class DataConfig:
    """One source of training images.

    Args:
        cloudy: Folder of cloudy images, relative to the data root; ``None`` for clear images alone.
        clear: Folder of clear images with the same names.
        masks: For a detector, in the place of ``clear``: folder of masks of the cloudy images, with the same
            names: 0 clear, 1 cloud, 2 shadow, 3 thin cloud.
        share: How often this source is drawn, relative to the others.
        simulate: Share of the crops with simulated cloud over the clear image.
        clouds: What clouds are simulated.
        tone: Bring each clear image into the tone of its cloudy one.
        scales: Scales at which crops are drawn, each 1 / whole number (area-averaged).
        bands: Bands to take, by position in the file, 0-based; ``None`` = all as they are.
        brightness: Range of the gain that images of this source are multiplied with (on [0, 1]).
        tint: Greatest gain, as a power of e, that each band is multiplied with on its own: another sensor's.
        gamma: Greatest power of e that the exponent of an image's tone curve is drawn from, either way.
        enlarge: Greatest factor that crops are enlarged by; from a smaller part of the image, then.
        haze: Greatest haze, a part of white, that images get in truth and cloudy alike: the haze that belongs
            to a date is not to be removed. Half of the images get none.
        mean: Range that the mean light of the truth is drawn from, before ``brightness``; ``None``: as it is.
        spread: Range that the standard deviation of the truth's light is drawn from, beside ``mean``, and its
            visible bands get one mean: as pictures are delivered. ``None``: as the image has them.
        stretch: Greatest power of e of a gain, and a third of it as an offset, that each band outside the
            visible ones is shown with, truth and cloudy alike: pictures are delivered with every band
            stretched by itself, so that a grey veil need not be grey there. For a detector, a third of it for
            every band besides.
        shown: Share of the crops under veils that are not thin whose cloudy image is shown in a light of its
            own: its mean lies between the veiled one's and the truth's, or up to 8 % beyond. Pictures are
            delivered date by date, each as bright as suits it; through a thin veil the ground tells the tone.
        shown_gain: Greatest power of e of the gain that those are stretched by about their mean besides: of a
            hazy date the black is taken off before it is delivered.
        jpeg: Range of the quality that half of the cloudy images are compressed with; ``None``: none is.
            A veil that is lifted brings out the blocks of the compression with the ground.
        veil: Share of the simulated crops that lie under a veil, an even one mostly, that is to be removed.
        veil_clouds: Share of those that have clouds besides.
        veil_seen: Share of those whose veil a detector sees.
        veil_labels: For a detector: opacity up to which ground under a veil is clear, and from which on the
            veil is cloud; between them it is neither.
        veils: What veils are drawn.
        roofs: Share of the crops that flat roofs are painted on; where all clouds are simulated.
        keep_clear: Real pairs only: where cloudy and clear, in one tone and smoothed, differ by less than the
            first number (DN of 255), the cloudy image is its own truth; from the second on, the clear one is.
        holdout: Names (without ending) from-to, inclusive, kept for the stages that judge the reference; of a
            validation, the names that it is held on.
        judged: Whether a detector's threshold is chosen on these, too.
        folder: In the place of ``cloudy`` and ``clear``: a folder laid out as data sets are published, with
            ``cloud`` or ``cloudy`` and ``label`` or ``clear`` in it, and maybe ``nir`` with the same in it;
            or a part of SEN12MS-CR or WHUS2-CR.
        resize: Resize whole images to this width first, bicubically as the paper did.
        windowed: Read crops from the files as they are drawn, instead of holding the images in memory;
            ``None``: where an image is large.
    """

    clear: str | None = None
    cloudy: str | None = None
    masks: str | None = None
    share: float = 1.0
    simulate: float = 0.0
    tone: bool = True
    scales: tuple[float, ...] = (1.0,)
    bands: tuple[int, ...] | None = None
    brightness: tuple[float, float] = (0.9, 1.1)
    tint: float = 0.0
    gamma: float = 0.0
    haze: float = 0.0
    enlarge: float = 1.0
    roofs: float = 0.0
    keep_clear: tuple[float, float] | None = None
    holdout: tuple[tuple[str, str], ...] = ()
    judged: bool = True
    folder: str | None = None
    resize: int | None = None
    windowed: bool | None = None
    clouds: CloudRecipe = field(default_factory=CloudRecipe)
    mean: Range | None = None
    spread: Range | None = None
    jpeg: Range | None = None
    stretch: float = 0.0
    shown: float = 0.0
    shown_gain: float = 0.0
    veil: float = 0.0
    veil_clouds: float = 0.4
    veil_seen: float = 0.5
    veil_labels: Range = (0.2, 0.45)
    veils: VeilRecipe = field(default_factory=VeilRecipe)

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.masks is not None:
            if self.clear or self.folder or not self.cloudy or self.simulate:
                raise ValueError("masks are of the images in cloudy, without clear, folder or simulate")
        elif (self.folder is None) == (self.clear is None) or (self.folder and self.cloudy):
            raise ValueError("images come from either folder, or clear and, for real pairs, cloudy: give one")
        if self.resize is not None and (not 1 <= self.resize <= WIDEST or self.windowed):
            raise ValueError(
                f"resize must be a width from 1 to {WIDEST} px, of images held in memory, got {self.resize}"
            )
        if not 0 <= self.simulate <= 1:
            raise ValueError(f"simulate must be a share of the crops, from 0 to 1, got {self.simulate:g}")
        if not 0 <= self.share <= 1e6:
            raise ValueError(f"share must be a weight from 0 to 1e6, got {self.share:g}")
        if self.folder is None and self.cloudy is None and self.simulate != 1.0:
            raise ValueError(f"clear images without cloudy ones need simulate = 1.0, got {self.simulate}")
        if not self.scales or any(
            not s >= SMALLEST or round(1 / s) < 1 or abs(1 / s - round(1 / s)) > 1e-6 for s in self.scales
        ):
            raise ValueError(f"scales must be 1 / whole numbers up to {1 / SMALLEST:g}, got {self.scales}")
        if not 0 <= self.gamma <= 2:
            raise ValueError(f"gamma must be a power of e, from 0 to 2, got {self.gamma:g}")
        if not 0 <= self.shown_gain <= 1 or (self.shown_gain and not self.shown):
            raise ValueError(f"shown_gain must be in [0, 1], beside shown, got {self.shown_gain:g}")
        if not 0 <= self.stretch <= 1:
            raise ValueError(f"stretch must be a power of e, from 0 to 1, got {self.stretch:g}")
        if not 1 <= self.enlarge <= 4:
            raise ValueError(f"enlarge must be a factor from 1 to 4, got {self.enlarge:g}")
        if not 0 <= self.haze < 1:
            raise ValueError(f"haze must be a part of white, from 0 to below 1, got {self.haze:g}")
        if not 0 <= self.roofs <= 1 or (self.roofs and self.simulate != 1.0):
            raise ValueError(f"roofs must be a share, from 0 to 1, with simulate = 1.0, got {self.roofs:g}")
        if any(not 0 <= part <= 1 for part in (self.veil, self.veil_clouds, self.veil_seen, self.shown)):
            raise ValueError("veil, veil_clouds, veil_seen and shown must be shares, from 0 to 1")
        if not 0 <= self.veil_labels[0] <= self.veil_labels[1] <= 1:
            raise ValueError(f"veil_labels must be two rising opacities, from 0 to 1, got {self.veil_labels}")
        if self.mean is not None and not 0 < self.mean[0] <= self.mean[1] < 1:
            raise ValueError(f"mean must rise between black and white, 0 and 1, got {self.mean}")
        if self.spread is not None and (self.mean is None or not 0 < self.spread[0] <= self.spread[1] < 1):
            raise ValueError(f"spread must rise between 0 and 1, beside mean, got {self.spread}")
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ValueError(f"jpeg must be two rising qualities from 1 to 100, got {self.jpeg}")
        if not self.judged and not self.holdout:
            raise ValueError("judged = false is of images that are held out: name them in holdout")
        if self.keep_clear is not None and not 0 <= self.keep_clear[0] < self.keep_clear[1] <= 1000:
            raise ValueError(f"keep_clear must be two rising numbers of DN, to 1000, got {self.keep_clear}")

    def _check_ranges(self) -> None:
        """Refuse bands, gains and names that no image has."""
        if self.bands is not None and (not self.bands or min(self.bands) < 0):
            raise ValueError(f"bands must be positions in the file, counted from 0, got {self.bands}")
        if not 0 < self.brightness[0] <= self.brightness[1] <= 100:
            raise ValueError(f"brightness must be two rising gains above 0, to 100, got {self.brightness}")
        if not 0 <= self.tint <= 2:
            raise ValueError(f"tint must be a power of e, from 0 to 2, got {self.tint:g}")
        for first, last in self.holdout:
            if first > last:
                raise ValueError(f"holdout must be names from-to, in their order, got {first!r} to {last!r}")

    def held_out(self, name: str) -> bool:
        """Return whether the image of this name is kept from training the reference."""
        return any(first <= name <= last for first, last in self.holdout)
