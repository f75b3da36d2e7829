"""Settings given by name, and the one error a user sees when a setting cannot be used."""

import pkgutil
from types import ModuleType
from typing import Any


class SettingError(ValueError):
    """A setting that cannot work: names the setting, its value and the way out."""


def resolve(setting: str, value: Any, module: ModuleType) -> Any:
    """Return what ``value`` names.

    Args:
        setting: Option name for the error message, for example ``--acquisition.function``.
        value: A name in ``module.__all__`` (upper or lower case), a dotted import path, or the
            object itself.
        module: Where plain names are looked up.

    Raises:
        SettingError: If nothing has that name.
    """
    if not isinstance(value, str):
        return value
    shipped = {name.lower(): name for name in module.__all__}
    if value.lower() in shipped:
        return getattr(module, shipped[value.lower()])
    try:
        if "." in value:
            return pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(f"{setting}: {value!r} cannot be imported ({error}).") from error
    choices = f"Choose one of {', '.join(sorted(module.__all__))}, or give" * bool(module.__all__)
    raise SettingError(
        f"{setting}: {value!r} is unknown. {choices or 'Give'} an import path such as "
        "my_package.my_module.my_object."
    )
