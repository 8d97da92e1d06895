"""Trains DenseNets in less memory: dense blocks are computed a second time for their gradients."""

from typing import Any

import keras


def recompute_dense_blocks(model: keras.Model) -> None:
    """Makes a network drop the features inside its dense blocks and recompute them for gradients.

    Each layer of a dense block reads all layers before it, so the memory for the gradients grows
    with the square of their number. `keras.RematScope` acts on one layer at a time and still keeps
    those inputs; this recomputes a whole block. Only training changes: layers, weights and files
    stay the same. In each step the moving averages of batch norm inside the blocks are updated
    twice.

    Args:
        model: a network from `model1` or `model2` with a DenseNet; changed in place.

    Reference:
        Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets
        (https://arxiv.org/abs/1707.06990); Chen et al. 2016, Training Deep Nets with Sublinear
        Memory Cost (https://arxiv.org/abs/1604.06174).
    """

    def output(name: str) -> Any:
        return model.get_layer(name).output

    # The tensors that later parts read, in the order of the graph. The last one of each row is the
    # input of a dense block.
    block_inputs = [
        [output("normalisation"), output("conv1_relu"), output("pool1")],
        [output("pool2_relu"), output("pool2_pool")],
        [output("pool3_relu"), output("pool3_pool")],
    ]
    block_outputs = [model.get_layer(name).input for name in ("pool2_bn", "pool3_bn", "pool4_bn")]
    transitions = [
        keras.Model(start, outputs)
        for start, outputs in zip([model.input, *block_outputs], block_inputs, strict=False)
    ]
    blocks = [
        keras.Model(row[-1], end) for row, end in zip(block_inputs, block_outputs, strict=True)
    ]
    skipped = [tensor for row in block_inputs for tensor in row[:-1]]
    head = keras.Model([*skipped, block_outputs[-1]], model.output)
    plain_call = model.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return plain_call(inputs, training=training, mask=mask)
        features, skips = inputs, []
        for transition, block in zip(transitions, blocks, strict=True):
            *more_skips, features = transition(features, training=True)
            skips += more_skips
            features = keras.remat(lambda x, block=block: block(x, training=True))(features)
        return head([*skips, features], training=True)

    model.call = call
