"""The files that a video can be written to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """How FFmpeg writes a file.

    Attributes:
        container: name of the muxer.
        encoder: name of the video encoder.
        opaque: pixel format of RGB and grey pictures.
        transparent: pixel format of RGBA pictures, or None if there is no transparency.
        options: of the encoder.
        container_options: of the muxer.
        tick: seconds, the unit of time stamps; None for any.
        even: whether width and height must be even.
        sound: codecs of sound that the container takes as they are; empty if it has no sound.
        sound_encoder: for all other sound.
        tags: whether it holds title, author, date, place and the like.
        loop: options of the muxer for the number of times that an animation is shown, 0 for ever.
    """

    container: str
    encoder: str
    opaque: str
    transparent: str | None
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    tick: Fraction | None = None
    even: bool = False
    sound: tuple[str, ...] = ()
    sound_encoder: str = ""
    tags: bool = False
    loop: Callable[[int], dict[str, str]] | None = None


_MILLISECOND = Fraction(1, 1000)
_MOST_PLAYS = 65535

FORMATS = {
    ".webm": Format(
        container="webm",
        encoder="libvpx-vp9",
        opaque="yuv420p",
        transparent="yuva420p",
        options={
            "crf": "24",
            "b": "0",
            "deadline": "realtime",
            "cpu-used": "7",
            "row-mt": "1",
            "lag-in-frames": "0",  # or 25 frames are held, which are not looked at in real time
        },
        tick=_MILLISECOND,
        sound=("opus", "vorbis"),
        sound_encoder="libopus",
        tags=True,
    ),
    ".mov": Format(
        container="mov",
        encoder="prores_ks",
        opaque="yuv444p10le",
        transparent="yuva444p10le",
        options={"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
        sound=("aac", "alac", "mp3", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"),
        sound_encoder="aac",
        tags=True,
    ),
    ".mp4": Format(
        container="mp4",
        encoder="libx264",
        opaque="yuv420p",
        transparent=None,
        options={"crf": "18", "preset": "veryfast"},
        container_options={"movflags": "faststart"},
        even=True,
        sound=("aac", "alac", "mp3", "ac3", "eac3"),
        sound_encoder="aac",
        tags=True,
    ),
    ".webp": Format(
        container="webp",
        encoder="libwebp_anim",
        opaque="bgra",
        transparent="bgra",
        options={"quality": "85", "lossless": "0"},
        tick=_MILLISECOND,
        loop=lambda plays: {"loop": str(min(plays, _MOST_PLAYS))},
    ),
    ".apng": Format(
        container="apng",
        encoder="apng",
        opaque="rgb24",
        transparent="rgba",
        tick=_MILLISECOND,
        loop=lambda plays: {"plays": str(min(plays, _MOST_PLAYS))},
    ),
    ".gif": Format(
        container="gif",
        encoder="gif",
        opaque="pal8",
        transparent="pal8",
        tick=Fraction(1, 100),
        # It counts the repetitions; -1 is none.
        loop=lambda plays: {"loop": str(min(plays, _MOST_PLAYS) - 1 or -1) if plays else "0"},
    ),
}
