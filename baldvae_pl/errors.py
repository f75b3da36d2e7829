"""The one error that a user sees when a setting cannot be used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SettingError(ValueError):
    """A setting that cannot work: names the setting, its value and the way out."""


@contextmanager
def refused(setting: str, but: type[Exception] = SettingError) -> Iterator[None]:
    """Turn any exception of user-supplied code into a one-sentence SettingError.

    Args:
        setting: Option that named the code, for example ``--acquisition.function``.
        but: Exceptions that already say what to do, and pass.

    Raises:
        SettingError: In place of any other exception.
    """
    try:
        yield
    except (SettingError, but):
        raise
    except Exception as error:
        if is_of_other_processes(error):
            raise
        text = " ".join(str(error).split()).rstrip(".")
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise SettingError(f"{setting}: {what}. Fix it, or choose another.") from error


def is_of_other_processes(error: Exception) -> bool:
    """Whether an exception says that another process of the run is not there, or not any more."""
    if "torch" not in sys.modules:  # which takes seconds to import
        return False
    from torch import distributed

    # Gloo raises none of its own.
    return isinstance(error, getattr(distributed, "DistError", ())) or (
        isinstance(error, RuntimeError) and "/gloo/transport/" in str(error)
    )
