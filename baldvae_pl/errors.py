"""The one error that a user sees when a setting cannot be used."""

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
        text = " ".join(str(error).split()).rstrip(".")
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise SettingError(f"{setting}: {what}. Fix it, or choose another.") from error
