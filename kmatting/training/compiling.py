"""Gives a network its loss, its optimizer and the figures that are logged."""

import keras

from kmatting.config import TrainingConfig
from kmatting.training.keras_metrics import MAD, MSE, SAD
from kmatting.training.losses import L1SSIMLoss, l1, ssim_loss
from kmatting.training.optimizer import Adam


def compile_model(model: keras.Model, optimizer: Adam, config: TrainingConfig) -> None:
    """Compiles a network for training, and builds its optimizer.

    Args:
        model: a matting network.
        optimizer: of this training; one that has trained already keeps its state.
        config: the training section of a config.
    """
    parts = [keras.metrics.MeanMetricWrapper(part, part.__name__) for part in (l1, ssim_loss)]
    model.compile(
        optimizer=optimizer,
        loss=L1SSIMLoss(config.l1_weight, config.ssim_weight, config.cross_entropy_weight),
        weighted_metrics=[*parts, SAD(), MSE(), MAD()],
        jit_compile=config.jit,
    )
    # By the first step it would be built inside the graph, which would have to be traced twice.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
