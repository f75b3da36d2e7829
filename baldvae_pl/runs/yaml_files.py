"""YAML as people write it: in UTF-8, and no key twice, of which YAML would drop the first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

UNREADABLE = (OSError, ValueError, yaml.YAMLError, RecursionError)
"""Raised for a file that is missing, damaged or something else."""


class KeyTwiceError(ValueError):
    """A key that stands twice in one mapping; the message is a sentence's end."""


def load_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        KeyTwiceError: If a key stands twice in it.
        UNREADABLE: For other reasons not to read it.
    """
    text = path.read_text(encoding="utf-8")
    check_keys(text)
    return yaml.safe_load(text)


def check_keys(text: str) -> None:
    """Raise a KeyTwiceError if a key stands twice in one mapping; ``<<`` may."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for mapping, name in mappings(root, "", set()) if root is not None else ():
        first: dict[tuple[str, str], int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if (before := first.get((key.tag, key.value))) is not None:
                raise KeyTwiceError(
                    f"the key {name}{key.value} is given twice, in lines {before} and {line}, and "
                    "only the second would count. Put both together"
                )
            first[key.tag, key.value] = line


def mappings(node: Any, name: str, seen: set[int]) -> Iterator[tuple[Any, str]]:
    """Yield all mappings at or below a node, each with the dotted name of what it belongs to."""
    if id(node) in seen:  # an anchor may lead back to what it is in
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node, name
        for key, value in node.value:
            below = f"{name}{key.value}." if isinstance(key, yaml.ScalarNode) else name
            yield from mappings(value, below, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from mappings(value, name, seen)
