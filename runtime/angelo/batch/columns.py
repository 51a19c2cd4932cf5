"""Columns of a manifest: the options of ``angelo build``, whatever they are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

#: Options of a build that the batch decides for all rows.
NOT_COLUMNS = ("out", "device", "threads", "overwrite", "debug")
#: Words for yes and no in a column of an option that takes no value.
YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: an argument or option of a build."""

    name: str
    """As in the header line."""
    kind: type
    """Path, str, int, float or bool."""
    flags: tuple[str, ...]
    """The option, and for a yes/no one its opposite; empty for an argument."""
    is_required: bool
    """Whether every row needs a value."""
    least: int | float | None = None
    """Smallest value that is allowed."""
    choices: tuple[str, ...] = ()
    """The values there are; empty: any."""

    def complaint(self, text: str) -> str | None:
        """Say what is wrong with a value, files aside; None when nothing is."""
        if self.choices and text not in self.choices:
            return f"is {text!r}, wants one of {', '.join(self.choices)}"
        if self.kind is bool and text.lower() not in YES_NO:
            return f"is {text!r}, wants yes or no"
        if self.kind in (int, float):
            try:
                value = self.kind(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                wanted = "a whole number" if self.kind is int else "a number"
                return f"is {text!r}, wants {wanted}"
            if self.least is not None and value < self.least:
                return f"is {text}, but must be at least {self.least:g}"
        return None

    def arguments(self, text: str) -> list[str]:
        """Words of the command line for a checked value."""
        if self.kind is bool:
            yes, no = (*self.flags, None)[:2]
            flag = yes if YES_NO[text.lower()] else no
            return [flag] if flag else []
        return [*self.flags[:1], text]


def columns_of(command: Any, function: Callable[..., Any]) -> dict[str, Column]:
    """Columns by name, arguments first.

    Parameters
    ----------
    command
        ``angelo build`` as the command line library holds it: its options.
    function
        What it calls: their types.
    """
    hints = get_type_hints(function)
    columns = {}
    for option in command.params:
        if option.name in NOT_COLUMNS or option.name not in hints:
            continue
        kind, choices = _plain_kind(hints[option.name])
        if kind not in (Path, str, int, float, bool):
            continue
        name = option.name.removesuffix("_path")
        is_option = option.opts[0].startswith("-")
        columns[name] = Column(
            name=name,
            kind=kind,
            flags=(option.opts[0], *option.secondary_opts) if is_option else (),
            is_required=bool(option.required),
            least=getattr(option, "min", None),
            choices=choices,
        )
    return columns


def _plain_kind(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """Type of an option without "or None", and its choices where it has some."""
    if get_origin(hint) in (UnionType, Union):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        return str, tuple(map(str, get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return str, tuple(str(member.value) for member in hint)
    return hint, ()
