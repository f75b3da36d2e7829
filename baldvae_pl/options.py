"""Options that name a function: by its short name, or by its import path."""

import pkgutil
from types import ModuleType
from typing import Any

from baldvae_pl.errors import SettingError


def resolve(setting: str, value: Any, module: ModuleType) -> Any:
    """Resolve a short name or import path to the function it names.

    Args:
        setting: Option name for the error message, for example ``--acquisition.function``.
        value: A name in ``module.__all__``, a dotted import path, or the object itself.
        module: Where short names are looked up.

    Raises:
        SettingError: If nothing has that name, or it cannot be called.
    """
    if not isinstance(value, str):
        return value
    if value in module.__all__:
        return getattr(module, value)
    if "." not in value:
        raise SettingError(
            f"{setting}: {value!r} is unknown. Choose one of {', '.join(sorted(module.__all__))}, "
            "or give an import path such as my_package.my_module.my_function."
        )
    try:
        found = pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"{setting}: {value!r} cannot be imported ({error}).") from error
    if not callable(found):
        raise SettingError(f"{setting}: {value!r} is not a function. Name one.")
    return found


def as_list(value: Any) -> list[Any]:
    """Wrap a single value in a list; None is an empty one."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
