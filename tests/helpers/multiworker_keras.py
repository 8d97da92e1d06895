"""Tries Keras's `fit` under MultiWorkerMirroredStrategy with each of our two helpers.

Runs as one worker of two, each in a process of its own, started with TF_CONFIG. Prints JSON: the
loss, or what failed, with each helper alone, with none and with both.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from kmatting.training import replicas

HELP = {
    "none": (),
    "build": (replicas._build_from_one_replica,),
    "figures": (replicas._give_figures_an_axis,),
    "both": (replicas._build_from_one_replica, replicas._give_figures_an_axis),
}


def outcome(strategy, helpers):
    dataset = tf.data.Dataset.from_tensors((np.ones((2, 1), "float32"), np.ones((2, 1), "float32")))
    with strategy.scope():
        number = keras.Input((1,))
        model = keras.Model(number, keras.layers.Dense(1, kernel_initializer="zeros")(number))
        model.compile("sgd", "mae", weighted_metrics=["mse"])
    for help_model in helpers:
        help_model(model)
    try:
        return model.fit(replicas.distribute(strategy, dataset), steps_per_epoch=1, verbose=0)
    except ValueError as error:
        return str(error)[:200] + str(error)[-200:]


if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    outcomes = {name: outcome(strategy, helpers) for name, helpers in HELP.items()}
    print(json.dumps(outcomes, default=lambda result: result.history["loss"][0]))
