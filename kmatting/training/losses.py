"""The training loss: a weighted sum of the terms in `loss_terms`."""

from collections.abc import Mapping
from typing import Any

import keras

from kmatting.training import loss_terms


@keras.saving.register_keras_serializable(package="kmatting")
class MattingLoss(keras.losses.Loss):
    """Weighted sum of loss terms, computed in float32.

    Args:
        weights: the weight of each term, by its name in `kmatting.training.loss_terms`. Terms of
            weight 0 are not computed.
        name: name of the loss.
        **kwargs: passed on to `keras.losses.Loss`.

    Input shape:
        Both alphas (N, H, W, 1) in [0, 1], H and W at least 11 (for SSIM). A negative true alpha
        marks a pixel that is not known, which adds nothing to the loss.

    Output shape:
        (N,) before reduction: one value an image.

    Examples:
        >>> loss = MattingLoss({"l1": 1.0, "ssim": 1.0})
        >>> float(loss(alphas, alphas))
        0.0
    """

    def __init__(self, weights: Mapping[str, float], name: str = "matting", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.weights = {term: weight for term, weight in weights.items() if weight}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each image, shape (N,)."""
        terms = (
            weight * getattr(loss_terms, term)(y_true, y_pred)
            for term, weight in self.weights.items()
        )
        return sum(terms)

    def metrics(self) -> list["LossTerm"]:
        """Makes a metric of each term, so that each has its own curve."""
        return [LossTerm(term) for term in self.weights]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "weights": self.weights}


@keras.saving.register_keras_serializable(package="kmatting")
class LossTerm(keras.metrics.Mean):
    """Mean of a loss term over images, not weighted, to watch while training.

    Args:
        term: name of the term in `kmatting.training.loss_terms`.
        name: name in logs, such as `l1_loss` for `l1` by default.
        **kwargs: passed on to `keras.metrics.Mean`.
    """

    def __init__(self, term: str, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or f"{term}_loss", **kwargs)
        self.term = term

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of alphas, shapes as in `MattingLoss`; `sample_weight` is (N,) or None."""
        super().update_state(getattr(loss_terms, self.term)(y_true, y_pred), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "term": self.term}
