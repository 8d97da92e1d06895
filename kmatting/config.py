"""The configuration of a training run: YAML in, checked values out.

Every key has a default, so that a config file holds only what its recipe changes. Unknown keys and
wrong types are refused by name.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kmatting.sizes import STRIDE

# Encoders by name, and the module of kmatting.models that builds each.
ENCODERS = {
    "densenet121": "densenet",
    "densenet169": "densenet",
    "densenet201": "densenet",
    "efficientnet_lite0": "efficientnet_lite",
    "efficientnet_lite1": "efficientnet_lite",
    "efficientnet_lite2": "efficientnet_lite",
    "efficientnet_v2b0": "efficientnet_v2",
}


class ConfigError(ValueError):
    """A config that cannot be used; the message lists everything wrong with it, by name."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Which network.

    Attributes:
        name: `model1`, or `model2` for the one with attention.
        encoder: of the high-level branch; a name in `ENCODERS`.
        encoder_weights: `imagenet` (Keras downloads a DenseNet's; an EfficientNet-Lite's come with
            the extra `imagenet`), `none`, or the path of a weights file.
        skips: the decoder also sees what the encoder made at strides 8, 4 and 2.
        weights: `.keras` or `.weights.h5` file of the whole network to start from.
        freeze_encoder_epochs: the encoder is not trained in this many first epochs.
    """

    name: Literal["model1", "model2"] = "model1"
    encoder: str = "densenet201"
    encoder_weights: str = "imagenet"
    skips: bool = False
    weights: Path | None = None
    freeze_encoder_epochs: int = Field(default=0, ge=0)

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str) -> str:
        if encoder not in ENCODERS:
            raise ValueError(f"expected one of {', '.join(ENCODERS)}; received {encoder!r}")
        return encoder


class PairsSource(_Section):
    """Two folders, images and alphas, matched by stem.

    Attributes:
        coarse: the outlines are rough; a band along them is not learned from.
    """

    kind: Literal["pairs"] = "pairs"
    images: Path
    alphas: Path
    coarse: bool = False
    weight: float = Field(default=1.0, gt=0)


class ShardsSource(_Section):
    """Pairs that `python -m kmatting.data.shard pack` packed.

    Attributes:
        shards: folder of the shards.
        coarse: the outlines are rough; a band along them is not learned from.
    """

    kind: Literal["shards"]
    shards: Path
    coarse: bool = False
    weight: float = Field(default=1.0, gt=0)


class CompositeSource(_Section):
    """Foregrounds laid over random backgrounds, drawn anew each epoch.

    Without `alphas` the foregrounds are RGBA cutouts.
    """

    kind: Literal["composite"]
    foregrounds: Path
    alphas: Path | None = None
    backgrounds: Path
    weight: float = Field(default=1.0, gt=0)


class SyntheticSource(_Section):
    """Procedural samples, made on the fly without any file; new ones in every epoch.

    Attributes:
        count: how many make an epoch.
    """

    kind: Literal["synthetic"]
    count: int = Field(default=2000, ge=1)
    weight: float = Field(default=1.0, gt=0)


Source = Annotated[
    PairsSource | ShardsSource | CompositeSource | SyntheticSource, Field(discriminator="kind")
]


class Augmentation(_Section):
    """Random changes of the samples in training: the same geometry for image and alpha, then light.

    Blur, noise and JPEG change the image alone, each in half of the samples, by an amount drawn
    from nothing to the bound given here.

    Attributes:
        rotation_degrees: angles are drawn from minus to plus this.
        horizontal_flip: whether half of the samples are mirrored left to right.
        vertical_flip: whether half of the samples are mirrored top to bottom.
        fit: `resize` brings the whole image to `size`; `crop` a random part of the same shape;
            `stretch` a random part of any shape.
        crop_scale: with `crop`, bounds of the part's side as a share of the largest that fits; with
            `stretch`, of its height and its width as shares of the image's. A low first bound makes
            the subject larger: `[0.2, 1.0]` enlarges it up to five times.
        colour: strength of changes of brightness, contrast, saturation and tint, from 0 to 1.
        blur: largest standard deviation of a Gaussian blur, in pixels of the training size.
        noise: largest standard deviation of Gaussian noise, in pixel values from 0 to 1.
        jpeg_quality: lowest quality of JPEG compression, from 1 (poor) to 99; none by default.
    """

    rotation_degrees: float = Field(default=30.0, ge=0, le=180)
    horizontal_flip: bool = True
    vertical_flip: bool = True
    fit: Literal["resize", "crop", "stretch"] = "resize"
    crop_scale: tuple[float, float] = (0.5, 1.0)
    colour: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=16)
    noise: float = Field(default=0.0, ge=0, le=1)
    jpeg_quality: int | None = Field(default=None, ge=1, le=99)

    @field_validator("crop_scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"expected 0 < low <= high <= 1, received {list(scale)}")
        return scale


class DataConfig(_Section):
    """What is trained and validated on.

    Attributes:
        train: one or several sources.
        validation: sources of their own, or the share of the training sources that is held out,
            chosen by a hash of each stem.
        size: side of the square that the network trains at, or height and width; multiples of 16.
        on_bad_data: `error` stops before training and lists everything wrong; `skip` goes on
            without the bad files and lists them.
        augmentation: random geometry and light in training.
    """

    train: list[Source] = Field(min_length=1)
    validation: list[Source] | float = 0.1
    size: tuple[int, int] = (256, 256)
    on_bad_data: Literal["error", "skip"] = "error"
    augmentation: Augmentation = Augmentation()

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return (size, size) if isinstance(size, int) else size

    @field_validator("size")
    @classmethod
    def _multiple_of_stride(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(side < STRIDE or side % STRIDE for side in size):
            raise ValueError(f"expected multiples of {STRIDE}, received {list(size)}")
        return size

    @field_validator("validation")
    @classmethod
    def _share(cls, validation: Any) -> Any:
        if isinstance(validation, float) and not 0 <= validation < 1:
            raise ValueError(f"expected a share from 0 to below 1, received {validation}")
        return validation


class ScheduleConfig(_Section):
    """Learning rate over the run.

    Attributes:
        kind: `constant`, or `cosine` falling to `final` times the learning rate.
        warmup_epochs: the rate rises linearly over this many first epochs.
        final: with `cosine`, the last rate as a share of the learning rate.
    """

    kind: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0)
    final: float = Field(default=0.01, ge=0, le=1)


class LossConfig(_Section):
    """Weights of the terms of the loss; a term of weight 0 is not computed.

    Each term is the function of that name in `kmatting.training.loss_terms`.

    Attributes:
        l1: mean absolute difference.
        ssim: 1 - SSIM.
        cross_entropy: binary cross-entropy.
        sharpness: opacity left in between where the true alpha is plainly 0 or 1.
    """

    l1: float = Field(default=1.0, ge=0)
    ssim: float = Field(default=1.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)
    sharpness: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something_to_minimise(self) -> "LossConfig":
        if not any(self.model_dump().values()):
            raise ValueError("expected a weight above 0, received 0 for every term")
        return self


class TrainingConfig(_Section):
    """How it is trained. The defaults are the recipe: Adam 1e-4 with betas 0.5 and 0.999.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples a step over all replicas together.
        learning_rate: of Adam.
        beta_1: of Adam.
        beta_2: of Adam.
        schedule: learning rate over the run.
        clip_norm: gradients are scaled down to this global norm; none by default.
        loss: weights of the terms of the loss.
        average: momentum of a moving average of the weights, such as 0.999; none by default. The
            averaged weights are what is validated, shown on panels and saved as `best.keras`.
        precision: Keras dtype policy.
        jit: compile the step with XLA.
        recompute: compute the dense blocks again for their gradients: less memory, longer steps.
        devices: devices to train on, such as `["GPU:0"]`; none means all GPUs, or else the CPU.
        cpu_replicas: logical CPU devices, to try the multi-replica path on a machine without GPUs.
        panel_samples: validation samples on the panel of each epoch.
    """

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    beta_1: float = Field(default=0.5, ge=0, lt=1)
    beta_2: float = Field(default=0.999, ge=0, lt=1)
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=None, gt=0)
    loss: LossConfig = LossConfig()
    average: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit: bool = False
    recompute: bool = False
    devices: list[str] | None = Field(default=None, min_length=1)
    cpu_replicas: int = Field(default=1, ge=1)
    panel_samples: int = Field(default=4, ge=1, le=32)

    @model_validator(mode="after")
    def _one_choice_of_devices(self) -> "TrainingConfig":
        if self.devices and self.cpu_replicas > 1:
            raise ValueError("expected `devices` or `cpu_replicas`, received both")
        return self


class Config(_Section):
    """A whole training run: `model`, `data`, `training`, and the `seed` of every random draw."""

    model: ModelConfig = ModelConfig()
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _recompute_what_is_there(self) -> "Config":
        if self.training.recompute and not self.model.encoder.startswith("densenet"):
            raise ValueError(
                "training.recompute: expected an encoder with dense blocks, received "
                f"model.encoder {self.model.encoder}"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file.

    Args:
        path: YAML file.
        overrides: `a.b=value` strings, values in YAML, laid over the file. A number indexes a list:
            `data.train.0.images=photos`.

    Returns:
        The checked `Config`.

    Raises:
        ConfigError: if the file is missing or no YAML, or if keys or values are wrong.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise ConfigError(f"{path}: expected keys such as `data:`, received {found}.")
    for override in overrides:
        _apply(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} wrong:\n{lines}") from None


def save_config(config: Config, path: str | Path) -> None:
    """Writes a config, defaults included, so that it can be loaded again.

    Args:
        config: the config.
        path: destination, YAML.
    """
    values = config.model_dump(mode="json")
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _apply(values: dict[str, Any], override: str) -> None:
    """Sets one `a.b=value` in nested dicts and lists."""
    keys, separator, text = override.partition("=")
    if not separator or not keys:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as training.epochs=10.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from error
    if isinstance(value, str):
        value = _as_number(value)
    *parents, last = keys.split(".")
    node: Any = values
    try:
        for key in parents:
            if isinstance(node, list):
                node = node[int(key)]
            else:
                if node.get(key) is None:
                    node[key] = {}
                node = node[key]
        node[int(last) if isinstance(node, list) else last] = value
    except (ValueError, IndexError, AttributeError, TypeError):
        raise ConfigError(f"--set {override}: there is no key {keys} to set.") from None


def _as_number(text: str) -> str | float:
    """Reads numbers that YAML 1.1 takes for strings, such as 1e-4."""
    try:
        return float(text)
    except ValueError:
        return text


def _explain(problem: Any) -> str:
    """Says one of pydantic's findings in a line, with the nearest valid key for a wrong one."""
    name = ".".join(str(part) for part in problem["loc"] if part not in _UNION_TAGS)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(), n=1, cutoff=0.5)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return f"{name}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{name}: missing, this key has no default"
    received = problem["input"]
    if isinstance(received, dict):
        return f"{name}: {problem['msg']}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" + ("" if "received" in message else f", received {received!r}")


_UNION_TAGS = ("pairs", "shards", "composite", "synthetic", "float", "list[tagged-union]")


def _all_keys() -> Iterable[str]:
    """Lists the keys of all sections."""
    sections = [_Section]
    keys: set[str] = set()
    while sections:
        section = sections.pop()
        keys.update(section.model_fields)
        sections.extend(section.__subclasses__())
    return keys
