"""The `data` section of a config."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from kmatting.data.section import Section
from kmatting.data.sources import Source
from kmatting.sizes import STRIDE

LARGEST_SIZE = 8192  # pixels a side; a larger one is a slip, and would fill any memory


def _kind_of_validation(value: Any) -> str:
    return "sources" if isinstance(value, list) else "share"


def _check_share(share: float) -> float:
    if not 0 <= share < 1:
        raise ValueError(f"expected a share from 0 to below 1, received {share}")
    return share


_Share = Annotated[float, AfterValidator(_check_share)]


class Augmentation(Section):
    """Random changes of the samples in training: the same geometry for image and alpha, then light.

    Blur, noise and JPEG change the image alone, each in half of the samples, by an amount drawn
    from nothing to the bound given here.

    Attributes:
        rotation_degrees: angles are drawn from minus to plus this.
        turned: share of the samples that are turned by 90, 180 or 270 degrees before all else.
        horizontal_flip: whether half of the samples are mirrored left to right.
        vertical_flip: whether half of the samples are mirrored top to bottom.
        fit: `resize` brings the whole image to `size`; `crop` a random part of the same shape;
            `stretch` a random part of any shape.
        crop_scale: with `crop`, bounds of the part's side as a share of the largest that fits; with
            `stretch`, of its height and its width as shares of the image's. A low first bound makes
            the subject larger: `[0.2, 1.0]` enlarges it up to five times.
        colour: strength of changes of brightness, contrast, saturation and tint, from 0 to 1.
        exposure: pixel values are multiplied by 2^-exposure to 2^exposure, and clipped.
        grey: share of the samples that are shown in grey.
        blur: largest standard deviation of a Gaussian blur, in pixels of the training size.
        noise: largest standard deviation of Gaussian noise, in pixel values from 0 to 1.
        jpeg_quality: lowest quality of JPEG compression, from 1 (poor) to 99; none by default.
    """

    rotation_degrees: float = Field(default=30.0, ge=0, le=180)
    turned: float = Field(default=0.0, ge=0, le=1)
    horizontal_flip: bool = True
    vertical_flip: bool = True
    fit: Literal["resize", "crop", "stretch"] = "resize"
    crop_scale: tuple[float, float] = (0.5, 1.0)
    colour: float = Field(default=0.0, ge=0, le=1)
    exposure: float = Field(default=0.0, ge=0, le=4)
    grey: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=16)
    noise: float = Field(default=0.0, ge=0, le=1)
    jpeg_quality: int | None = Field(default=None, ge=1, le=99)

    @field_validator("crop_scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"expected 0 < low <= high <= 1, received {list(scale)}")
        return scale


class DataConfig(Section):
    """What to train and validate on.

    Attributes:
        train: one or several sources.
        validation: sources, or the share of the training sources that is held out, chosen by a hash
            of each stem.
        size: side of the square that the network is trained at, or height and width; multiples of
            16.
        on_bad_data: `error` checks all files before training and lists everything wrong; `skip`
            lists the bad files and trains without them; `trust` does not check. Files are checked
            once: what was good and has not changed is not read again.
        augmentation: random changes of the samples in training.
    """

    train: list[Source] = Field(min_length=1)
    validation: Annotated[
        Annotated[list[Source], Tag("sources")] | Annotated[_Share, Tag("share")],
        Discriminator(_kind_of_validation),
    ] = 0.1
    size: tuple[int, int] = (256, 256)
    on_bad_data: Literal["error", "skip", "trust"] = "error"
    augmentation: Augmentation = Augmentation()

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _pairs_by_default(cls, sources: Any) -> Any:
        if not isinstance(sources, list):
            return sources
        return [
            {"kind": "pairs", **source} if isinstance(source, dict) else source
            for source in sources
        ]

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int | float) else size

    @field_validator("size")
    @classmethod
    def _is_usable(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(not STRIDE <= side <= LARGEST_SIZE or side % STRIDE for side in size):
            raise ValueError(
                f"expected multiples of {STRIDE} up to {LARGEST_SIZE}, received {list(size)}"
            )
        return size
