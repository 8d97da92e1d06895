"""The devices to train on, of one machine or of several."""

import json
import os
import signal
from dataclasses import dataclass

import tensorflow as tf

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


def make_strategy(config: TrainingConfig, cluster: Cluster) -> tf.distribute.Strategy:
    """Makes the strategy for the devices of a config: by default all GPUs, or else the CPU.

    In a cluster it first waits for all other processes.

    Args:
        config: the `training` section of a config.
        cluster: the processes that train together.

    Returns:
        A `tf.distribute.MirroredStrategy`, or a `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        ConfigError: if a device does not exist, if the batch size is not a multiple of the number
            of replicas, or if XLA is asked for with several replicas.
    """
    strategy = _on_machines(config, cluster) if cluster.workers > 1 else _on_this_machine(config)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise ConfigError(
            f"training.batch_size: expected a multiple of the {replicas} replicas, "
            f"received {config.batch_size}."
        )
    if config.jit and replicas > 1:
        raise ConfigError(
            f"training.jit: XLA cannot compile a step over {replicas} replicas. Train on one "
            "device, or set training.jit=false."
        )
    return strategy


def _on_this_machine(config: TrainingConfig) -> tf.distribute.Strategy:
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


def _on_machines(config: TrainingConfig, cluster: Cluster) -> tf.distribute.Strategy:
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
