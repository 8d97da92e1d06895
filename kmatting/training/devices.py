"""The devices to train on, of one machine or of several."""

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import keras

from kmatting.config import TrainingConfig
from kmatting.errors import ConfigError


@dataclass(frozen=True)
class Cluster:
    """The processes that train together, one a machine.

    Attributes:
        addresses: host and port of each process; none if this process trains alone.
        index: index of this process. 0 is the chief, which writes the files of the run.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0

    @property
    def workers(self) -> int:
        """Number of processes that train together."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0


def read_cluster() -> Cluster:
    """Reads the environment variable TF_CONFIG.

    Returns:
        The cluster. Without the variable it is this process alone.

    Raises:
        ConfigError: if the variable holds something else than a cluster.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return Cluster()
    try:
        values = json.loads(text)
        jobs, task = values["cluster"], values["task"]
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        index = task["index"] + (len(chiefs) if task["type"] == "worker" else 0)
        valid = (
            not set(jobs) - {"chief", "worker"}
            and len(chiefs) <= 1
            and 0 <= task["index"] < len(jobs[task["type"]])
            and all(isinstance(address, str) for address in [*chiefs, *workers])
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise ConfigError(
            'TF_CONFIG: expected {"cluster": {"worker": ["HOST:PORT", ...]}, '
            f'"task": {{"type": "worker", "index": NUMBER}}}}, received {text}'
        )
    return Cluster((*chiefs, *workers), index)


@dataclass(frozen=True)
class PlainStrategy:
    """Stands for a strategy of TensorFlow on Keras's other backends.

    Attributes:
        num_replicas_in_sync: number of devices, each of which gets its part of a batch.
    """

    num_replicas_in_sync: int = 1

    def scope(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which networks are made."""
        return contextlib.nullcontext()


def make_strategy(config: TrainingConfig, cluster: Cluster) -> Any:
    """Makes the strategy for the devices of a config: by default all GPUs, or else the CPU.

    In a cluster it first waits for all other processes. On JAX the devices are shared by
    `keras.distribution.DataParallel`, set for the whole process.

    Args:
        config: the `training` section of a config.
        cluster: the processes that train together.

    Returns:
        A `tf.distribute.MirroredStrategy`, a `tf.distribute.MultiWorkerMirroredStrategy`, or a
        `PlainStrategy`.

    Raises:
        ConfigError: if a device does not exist, if the batch size is not a multiple of the number
            of replicas, or if XLA is asked for with several replicas.
    """
    strategy: Any
    if keras.backend.backend() != "tensorflow":
        strategy = _without_tensorflow(config, cluster)
    elif cluster.workers > 1:
        strategy = _on_machines(config, cluster)
    else:
        strategy = _on_this_machine(config)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise ConfigError(
            f"training.batch_size: expected a multiple of the {replicas} replicas, "
            f"received {config.batch_size}."
        )
    if config.jit and replicas > 1 and keras.backend.backend() == "tensorflow":
        raise ConfigError(
            f"training.jit: XLA cannot compile a step over {replicas} replicas. Train on one "
            "device, or set training.jit=false."
        )
    return strategy


def _without_tensorflow(config: TrainingConfig, cluster: Cluster) -> PlainStrategy:
    backend = keras.backend.backend()
    if cluster.workers > 1:
        raise ConfigError(f"TF_CONFIG: several machines need TensorFlow, received {backend}.")
    if config.cpu_replicas > 1:
        raise ConfigError(f"training.cpu_replicas: needs TensorFlow, received {backend}.")
    known = keras.distribution.list_devices() if backend == "jax" else []
    devices = [name.lower() for name in config.devices or known]
    if missing := sorted(set(devices) - set(known)):
        found = f"this machine has {', '.join(known)}" if known else f"{backend} chooses its own"
        raise ConfigError(f"training.devices: {', '.join(missing)} not found; {found}.")
    if len(devices) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return PlainStrategy(max(1, len(devices)))


def _on_this_machine(config: TrainingConfig) -> Any:
    import tensorflow as tf

    if config.cpu_replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        replicas = [tf.config.LogicalDeviceConfiguration()] * config.cpu_replicas
        tf.config.set_logical_device_configuration(cpu, replicas)
        devices = [f"CPU:{index}" for index in range(config.cpu_replicas)]
    else:
        known = [device.name.split("device:")[-1] for device in tf.config.list_logical_devices()]
        devices = config.devices or [name for name in known if name.startswith("GPU")] or ["CPU:0"]
        if missing := sorted(set(devices) - set(known)):
            raise ConfigError(
                f"training.devices: {', '.join(missing)} not found; this machine has "
                f"{', '.join(known)}."
            )
    return tf.distribute.MirroredStrategy(devices)


def _on_machines(config: TrainingConfig, cluster: Cluster) -> Any:
    import tensorflow as tf

    if config.devices or config.cpu_replicas > 1:
        raise ConfigError(
            "training.devices and training.cpu_replicas cannot be set under TF_CONFIG: each worker "
            "takes all GPUs that it sees. Set CUDA_VISIBLE_DEVICES instead."
        )
    own = cluster.addresses[cluster.index]
    others = ", ".join(address for address in cluster.addresses if address != own)
    print(f"Worker {own} waits for {others}", flush=True)
    # Python would handle Ctrl-C only after the wait; TensorFlow replaces the handler of SIGTERM.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
