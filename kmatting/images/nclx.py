"""Converts photos to sRGB whose colours are named by the code points of ITU-T H.273.

HEIC files of cameras name them so (box `nclx`), in place of an ICC profile: HDR by the curves PQ
and HLG, and the wide colours of Display P3 and BT.2020. Seen as sRGB, such photos are dull.
"""

import numpy as np

_BT2020, _P3 = 9, 12  # primaries
_PQ, _HLG = 16, 18  # transfer curves; all others of photos are near that of sRGB

# From linear light in these primaries to linear light in those of sRGB (BT.2087; white is D65).
_TO_SRGB = {
    _BT2020: np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
        np.float32,
    ),
    _P3: np.array(
        [[1.2249, -0.2249, 0], [-0.0421, 1.0421, 0], [-0.0196, -0.0786, 1.0983]], np.float32
    ),
}
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_WHITE = 203.0  # candela per square metre of a white page in HDR (BT.2408)
_HLG_PEAK = 1000.0  # candela per square metre, for which HLG is usually graded
_ROWS = 256  # converted at a time, to save memory
_STEPS = 4095  # of the table from linear light to levels


def is_other_than_srgb(primaries: int, transfer: int) -> bool:
    """Returns whether colours must be converted to look right as sRGB.

    Args:
        primaries: code point of the primaries.
        transfer: code point of the transfer curve.
    """
    return primaries in _TO_SRGB or transfer in (_PQ, _HLG)


def to_srgb(rgb: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """Converts a photo to sRGB. Light that is brighter than a white page is clipped.

    Args:
        rgb: uint8 array (H, W, 3).
        primaries: code point of the primaries; what is unknown is taken for that of sRGB.
        transfer: code point of the transfer curve; what is unknown is taken for that of sRGB.

    Returns:
        uint8 array (H, W, 3).

    Reference:
        ITU-R BT.2100 (PQ and HLG), BT.2408 (reference white), BT.2087 (primaries).
    """
    linear = _linear_light(transfer)
    levels = np.rint(255 * _srgb_curve(np.arange(_STEPS + 1) / _STEPS)).astype(np.uint8)
    matrix = _TO_SRGB.get(primaries)
    converted = np.empty_like(rgb)
    for start in range(0, len(rgb), _ROWS):
        light = linear[rgb[start : start + _ROWS]]
        if transfer == _HLG:  # the eye's response to a whole scene, by its luminance
            luminance = np.maximum(light @ _LUMINANCE, np.float32(1e-6))[..., None]
            light = light * luminance ** np.float32(0.2) * np.float32(_HLG_PEAK / _WHITE)
        if matrix is not None:
            light = light @ matrix.T
        converted[start : start + _ROWS] = levels[np.rint(light.clip(0, 1) * _STEPS).astype(int)]
    return converted


def _linear_light(transfer: int) -> np.ndarray:
    """Returns the light of the 256 levels, 1 for a white page; of HLG the scene's, 1 at the top."""
    signal = np.arange(256) / 255
    if transfer == _PQ:
        root = signal ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = 10000 * ratio ** (1 / 0.1593017578125) / _WHITE
    elif transfer == _HLG:
        upper = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        light = np.where(signal <= 0.5, signal**2 / 3, upper)
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _srgb_curve(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
