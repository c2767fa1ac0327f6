"""YAML with line numbers: plain values only, and where in the file each of them stands."""

import re
from pathlib import Path
from typing import Any

import yaml

from usererror import UserError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-5`` as a number, as YAML 1.2 does and PyYAML does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class YamlFile:
    """A YAML mapping and the line of each of its fields.

    Raises:
        UserError: absent, unreadable, not YAML, not a mapping, or a key that stands twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(str(path), "no such file", remedy="name a search file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(str(path), "cannot be read", got=str(error)) from error
        try:
            node = yaml.compose(text, Loader=_Loader)
            values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise UserError(str(path), "not YAML", got=" ".join(str(error).split())) from error
        if not isinstance(values, dict):
            raise UserError(str(path), "not a mapping", rule="`name: value` lines at the top level")
        self.values: dict[str, Any] = values
        self._lines: dict[Location, int] = {}
        self._walk(node, ())

    def where(self, location: Location) -> str:
        """``file:line: a.b.c`` of a field, or of its nearest parent that stands in the file."""
        known = location
        while known and known not in self._lines:
            known = known[:-1]
        line = f":{self._lines[known]}" if known in self._lines else ""
        name = ".".join(str(part) for part in location)
        return f"{self.path}{line}" + (f": {name}" if name else "")

    def _walk(self, node: yaml.Node | None, location: Location) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*location, str(key.value))
                if inner in self._lines:
                    raise UserError(self.where(inner), "stands twice", rule="one value a field")
                self._lines[inner] = key.start_mark.line + 1
                self._walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._lines[(*location, index)] = value.start_mark.line + 1
                self._walk(value, (*location, index))
