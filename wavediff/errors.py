"""Everything that wavediff refuses, as one small tree of exceptions."""


class WavediffError(Exception):
    """What went wrong, in one line, with a hint that says what to do about it.

    The command line prints `wavediff: {message}` and `hint: {hint}` and exits non-zero.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class AudioError(WavediffError):
    """A sound that cannot be read, written or used."""


class RecipeError(WavediffError):
    """A recipe that cannot be understood."""


class MelError(WavediffError):
    """A mel spectrogram that cannot be read, or is not of the kind that is needed."""


class CheckpointError(WavediffError):
    """A checkpoint that is damaged, foreign, or of another task."""


class TaskError(WavediffError):
    """A request that this model or this installation cannot carry out."""


class DataError(WavediffError):
    """A folder of audio from which nothing can be learned or measured."""


class TrainingError(WavediffError):
    """A training that has to stop."""
