"""Everything that this project raises on purpose derives from one class."""


class DecrSceneError(Exception):
    """Base of all errors a user can cause; the message says found, expected, what to do, in one line."""


class CheckpointError(DecrSceneError, ValueError):
    """Weights, configuration and reference that do not belong together, or are not weights at all."""


class UnknownModelError(DecrSceneError, LookupError):
    """No bundled model and no file of this name."""


class TrainingError(DecrSceneError, ValueError):
    """A training run that cannot start or go on: bad data, bad configuration, another run's folder."""
