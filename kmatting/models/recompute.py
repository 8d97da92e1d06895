"""Less memory in training, for a longer step: dense blocks are computed again on the way back."""

from typing import Any

import keras


def recompute_dense_blocks(model: keras.Model) -> None:
    """Makes a network forget the insides of its dense blocks, and compute them again for gradients.

    Each layer of a dense block reads all layers before it, so that what is kept for the gradients
    grows with the square of their number. Only training is changed; the network's layers, weights
    and files stay what they are. Each step updates the blocks' moving averages of batch norm twice.
    TensorFlow only.

    Args:
        model: what `model1` or `model2` returned; changed in place.

    Reference:
        Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets
        (https://arxiv.org/abs/1707.06990); Chen et al. 2016, Training Deep Nets with Sublinear
        Memory Cost (https://arxiv.org/abs/1604.06174).
    """
    import tensorflow as tf

    def output(name: str) -> Any:
        return model.get_layer(name).output

    # What later parts read, in the order of the graph: the last of each list goes to a dense block.
    begins = [
        [output("normalisation"), output("conv1_relu"), output("pool1")],
        [output("pool2_relu"), output("pool2_pool")],
        [output("pool3_relu"), output("pool3_pool")],
    ]
    ends = [model.get_layer(name).input for name in ("pool2_bn", "pool3_bn", "pool4_bn")]
    between = [
        keras.Model(begin, outputs)
        for begin, outputs in zip([model.input, *ends], begins, strict=False)
    ]
    blocks = [keras.Model(begin[-1], end) for begin, end in zip(begins, ends, strict=True)]
    kept = [tensor for begin in begins for tensor in begin[:-1]]
    head = keras.Model([*kept, ends[-1]], model.output)
    plain = model.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return plain(inputs, training=training, mask=mask)
        features, seen = inputs, []
        for part, block in zip(between, blocks, strict=True):
            *skips, features = part(features, training=True)
            seen += skips
            features = tf.recompute_grad(lambda x, block=block: block(x, training=True))(features)
        return head([*seen, features], training=True)

    model.call = call
