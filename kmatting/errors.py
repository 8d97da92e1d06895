"""All errors that are meant for a user: what was received, what was expected, what to do.

    Error (a ValueError)
    ├── UsageError        arguments, options or files that a command cannot work with
    ├── ConfigError       a config
    ├── DataError         training data
    ├── ImageError        a photo or matte
    │   └── PhotoError    a photo that can be read but has no matte
    ├── VideoError        a video
    ├── ModelError        a model file
    └── TrainingError     a run of training
        ├── CheckpointError, NaNLossError, DeviceMemoryError
        └── WorkersDifferError, LostWorkerError

Handlers catch these, `OSError` and `MemoryError`. Any other exception is a bug of kmatting, and
keeps its traceback.
"""


class Error(ValueError):
    """Base of every error that is meant for a user; its message is complete in itself."""


class UsageError(Error):
    """Arguments, options or files that cannot be worked with as given."""


class ConfigError(Error):
    """A config that cannot be used; the message lists everything wrong with it, by name."""


class DataError(Error):
    """Training data that cannot be used; the message lists everything wrong with it."""


class ImageError(Error):
    """A photo or matte that cannot be read or written; the message names it and says why."""


class PhotoError(ImageError):
    """A photo that can be read but has no matte; the message names it and says why."""


class VideoError(Error):
    """A video that cannot be read or written; the message names it and says why."""


class ModelError(Error):
    """A model that cannot be used; the message says why."""


class TrainingError(Error):
    """A run of training that cannot start or continue."""


class CheckpointError(TrainingError):
    """A run that cannot be resumed because a file of it is damaged; the message names the file."""


class NaNLossError(TrainingError):
    """The loss became NaN or infinite; the message says in which step, and what may help."""


class DeviceMemoryError(TrainingError):
    """A step of training that needs more memory than the device has."""


class WorkersDifferError(TrainingError):
    """The workers of a cluster were started with different settings."""


class LostWorkerError(TrainingError):
    """Another worker of the cluster ended or cannot be reached."""


class ImageWarning(UserWarning):
    """A file with several frames or pages, of which one was read; the message names it."""
