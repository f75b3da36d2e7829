"""Settings given by name, and the one error a user sees when a setting cannot be used."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException


class SettingError(ValueError):
    """A setting that cannot work: names the setting, its value and the way out."""


@contextmanager
def refused(setting: str) -> Iterator[None]:
    """Make one sentence of whatever is raised by what a setting names.

    Raises:
        SettingError: Instead of anything else.
    """
    try:
        yield
    except (SettingError, MisconfigurationException):
        raise
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise SettingError(
            f"{setting}: {type(error).__name__}: {text}. Mend it, or choose another."
        ) from error


def resolve(setting: str, value: Any, module: ModuleType, kind: Any = Callable) -> Any:
    """Return what ``value`` names.

    Args:
        setting: Option name for the error message, for example ``--acquisition.function``.
        value: A name in ``module.__all__`` (upper or lower case), a dotted import path, or the
            object itself.
        module: Where plain names are looked up.
        kind: What it has to be.

    Raises:
        SettingError: If nothing has that name, or it is something else.
    """
    if not isinstance(value, str):
        return value
    shipped = {name.lower(): name for name in module.__all__}
    if value.lower() in shipped:
        return getattr(module, shipped[value.lower()])
    if "." in value:
        try:
            found = pkgutil.resolve_name(value)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingError(f"{setting}: {value!r} cannot be imported ({error}).") from error
        if not isinstance(found, kind):
            raise SettingError(f"{setting}: {value!r} is not a {kind.__name__}.")
        return found
    choices = f"Choose one of {', '.join(sorted(module.__all__))}, or give" * bool(module.__all__)
    raise SettingError(
        f"{setting}: {value!r} is unknown. {choices or 'Give'} an import path such as "
        "my_package.my_module.my_object."
    )


def with_options(function: Callable[..., Any], section: str, **options: Any) -> Callable[..., Any]:
    """Return a function with the options that were chosen; None stands for its own default.

    Args:
        function: What a user may have replaced by another one with fewer parameters.
        section: The options' section on the command line, for example ``data``.
        options: By the names of its parameters.

    Raises:
        SettingError: If an option was chosen that the function has no parameter for.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(chosen.keys() - inspect.signature(function).parameters.keys()):
        name = getattr(function, "__name__", str(function))
        raise SettingError(
            f"--{section}.{unknown[0]}: {chosen[unknown[0]]} cannot be chosen, as {name} has no "
            "such option. Leave it out."
        )
    return partial(function, **chosen)


def as_list(value: Any) -> list[Any]:
    """Return what a setting of one or several things holds."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
