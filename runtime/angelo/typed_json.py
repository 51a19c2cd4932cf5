"""JSON into typed values: unknown keys, missing keys and wrong types are named."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np


class ManifestValueError(ValueError):
    """A value of a manifest is wrong; the message starts with its key."""


def require(condition: bool, key: str, complaint: str) -> None:
    """Raise ``ManifestValueError`` about ``key`` unless the condition holds."""
    if not condition:
        raise ManifestValueError(f"{key or 'the manifest'} {complaint}")


def expect_keys(value: Any, keys: Sequence[str], where: str) -> None:
    """Require an object with exactly these keys."""
    require(isinstance(value, dict), where, f"is {_said(value)}, wants an object")
    prefix = f"{where}." if where else ""
    for key in keys:
        require(key in value, f"{prefix}{key}", "is missing")
    for key in value:
        require(key in keys, f"{prefix}{key}", "is not a key of this format")


def keys_of(kind: type, value: Any) -> list[str]:
    """Keys that an object for this dataclass wants: all but those of defaults it leaves out."""
    given = value if isinstance(value, dict) else {}
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING or field.name in given
    ]


def read_value(kind: Any, value: Any, where: str) -> Any:
    """JSON as a scalar, tuple, mapping, Literal, union with None, array or dataclass.

    Fields of a dataclass that have a default may be missing.

    Raises
    ------
    ManifestValueError
        If it is not one; the message starts with ``where``.
    """
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = (option for option in options if option is not type(None))
        return read_value(kind, value, where)
    if origin is Literal:
        require(value in options, where, f"is {_said(value)}, wants one of {list(options)}")
        return value
    if origin is tuple:
        return _read_tuple(options, value, where)
    if origin in (dict, Mapping):
        require(isinstance(value, dict), where, f"is {_said(value)}, wants an object")
        return {
            key: read_value(options[1], item, f"{where}.{key}") for key, item in value.items()
        }
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, where)
    if getattr(kind, "array_type", None) is np.ndarray:  # a jaxtyping annotation
        return np.array(_read_tuple((float, ...), value, where), np.float32)
    return _read_scalar(kind, value, where)


def _read_tuple(options: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    require(isinstance(value, list), where, f"is {_said(value)}, wants a list")
    if options[-1] is Ellipsis:
        options = (options[0],) * len(value)
    require(len(value) == len(options), where, f"has {len(value)} items, wants {len(options)}")
    return tuple(
        read_value(option, item, f"{where}[{i}]")
        for i, (option, item) in enumerate(zip(options, value, strict=True))
    )


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = keys_of(kind, value)
    expect_keys(value, names, where)
    arguments = {
        name: read_value(hints[name], value[name], f"{where}.{name}") for name in names
    }
    try:
        return kind(**arguments)
    except ValueError as error:  # a check of the dataclass itself
        raise ManifestValueError(f"{where}: {error}") from error


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    wanted = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    if kind is float:
        is_right = type(value) in (int, float) and math.isfinite(value)
    else:
        is_right = type(value) is kind
    require(is_right, where, f"is {_said(value)}, wants {wanted[kind]}")
    return float(value) if kind is float else value


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
