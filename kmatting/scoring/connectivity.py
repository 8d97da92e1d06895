"""The connectivity error: how much of a matte is disconnected from its main body."""

import numpy as np

from kmatting.images.regions import largest_component

__all__ = ["connectivity_map"]


def connectivity_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Computes the differences of the disconnected parts, int16 (H, W), in units of 1/510.

    Both a level, 1/255, and a step of the thresholds, 1/10, are whole multiples of this unit.
    """
    both = np.minimum(truth, prediction)
    in_source = np.ones(both.shape, np.bool_)
    connected = np.zeros(both.shape, np.uint8)  # in tenths
    for tenths in range(1, 11):
        in_source &= largest_component(both >= -(-255 * tenths // 10))
        if not in_source.any():
            break
        connected += in_source
    connected_level = connected.astype(np.int16) * 51
    true, predicted = (_disconnected(levels, connected_level) for levels in (truth, prediction))
    return np.abs(true - predicted)


def _disconnected(levels: np.ndarray, connected_level: np.ndarray) -> np.ndarray:
    above = levels.astype(np.int16) * 2 - connected_level
    above[above < 77] = 0  # theta is 0.15 * 510 = 76.5
    return above
