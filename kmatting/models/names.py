"""Names of what a network can be built of; nothing here imports Keras."""

# Encoders by name, and the module of this folder that builds each.
ENCODERS = {
    "densenet121": "densenet",
    "densenet169": "densenet",
    "densenet201": "densenet",
    "efficientnet_lite0": "efficientnet_lite",
    "efficientnet_lite1": "efficientnet_lite",
    "efficientnet_lite2": "efficientnet_lite",
    "efficientnet_v2b0": "efficientnet_v2",
}
