"""The devices that a training runs on."""

import tensorflow as tf

from kmatting.config import ConfigError, TrainingConfig


def make_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """Makes the strategy over the chosen devices: all GPUs, or else the CPU.

    Args:
        config: the training section of a config.

    Returns:
        A `tf.distribute.MirroredStrategy`.

    Raises:
        ConfigError: if a device does not exist, or the batch size is no multiple of their number.
    """
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
                f"training.devices: there is no {', '.join(missing)} here, only {', '.join(known)}."
            )
    if config.batch_size % len(devices):
        raise ConfigError(
            f"training.batch_size: expected a multiple of the {len(devices)} replicas, "
            f"received {config.batch_size}."
        )
    return tf.distribute.MirroredStrategy(devices)
