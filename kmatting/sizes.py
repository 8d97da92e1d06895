"""At which size, and how often, a network sees a photo: one rule for every format of model."""

import operator
from typing import Any, Literal

from kmatting.errors import UsageError

STRIDE = 16  # of the networks: heights and widths are multiples of it
DEFAULT_SIZE = 512  # of a model whose file does not store the size that it was trained at
STRETCH = 2.0  # largest factor by which a photo's aspect ratio is changed towards a square
LONGEST = 8  # longest side of a reduced panorama, as a multiple of the size

Size = int | tuple[int, int]  # side of a square, or height and width, in pixels
Quality = Literal["fast", "normal", "high"]  # how often, see `kmatting.inference.matter.Matter`


def height_width(size: Size) -> tuple[int, int]:
    """Returns height and width of a size, in pixels."""
    return size if isinstance(size, tuple) else (size, size)


def size_text(size: Size) -> str:
    """Writes a size as the commands read it: `512`, or `288x512`, height first."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def network_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Computes the size at which a network that takes any size sees a photo.

    A photo is reduced or enlarged to the area of `size` x `size` pixels, and stretched towards the
    square of training by at most `STRETCH`.

    Args:
        height: the photo's height in pixels.
        width: the photo's width in pixels.
        size: side of the square, in pixels.

    Returns:
        Height and width in pixels, before padding to multiples of `STRIDE`.
    """
    stretch = min(max(width / height, 1 / STRETCH), STRETCH)
    scale = min(size / (height * width) ** 0.5, LONGEST * size / max(height, width))
    taller = stretch**0.5
    return max(1, round(height * scale * taller)), max(1, round(width * scale / taller))


def fitted_size(height: int, width: int, fixed: tuple[int, int]) -> tuple[int, int]:
    """Computes the size at which a network of fixed size sees a photo.

    The photo is enlarged or reduced to fill the network's input, and stretched by at most
    `STRETCH`. One that would be stretched more fills only one side.

    Args:
        height: the photo's height in pixels.
        width: the photo's width in pixels.
        fixed: height and width of the network's input in pixels.

    Returns:
        Height and width in pixels, at most those of the input.
    """
    wider = (width / height) / (fixed[1] / fixed[0])
    unfilled = wider / min(max(wider, 1 / STRETCH), STRETCH)
    return (
        max(1, round(fixed[0] * min(1, 1 / unfilled))),
        max(1, round(fixed[1] * min(1, unfilled))),
    )


def padded(side: int) -> int:
    """Rounds a side up to a multiple of `STRIDE`."""
    return -(-side // STRIDE) * STRIDE


def whole_number(name: str, value: Any, lowest: int, highest: int) -> int:
    """Checks an argument that must be a whole number.

    Args:
        name: what the number is, for the message.
        value: the argument.
        lowest: the smallest number allowed.
        highest: the largest number allowed.

    Returns:
        The number as an `int`.

    Raises:
        TypeError: if it is not a whole number.
        UsageError: if it is out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}: expected a whole number, received {type(value).__name__}."
        ) from None
    if not lowest <= number <= highest:
        received = number if abs(number) < 10**12 else f"one of {number.bit_length()} bits"
        raise UsageError(
            f"{name}: expected a number from {lowest} to {highest}, received {received}."
        )
    return number
