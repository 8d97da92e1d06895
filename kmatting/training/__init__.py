"""Training a network: losses, metrics, optimizer, callbacks, devices and the run's folder."""
