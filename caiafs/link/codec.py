"""Dataclasses to JSON and back, strict on types.

Used by `link.channel` for messages and by whoever reads `link.report`. Pure. What a class does not
declare is refused, so that a torn frame is an error and not a guess.
"""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from caiafs.core.errors import CaiaError

T = TypeVar("T")

JsonValue = Any


class CodecError(CaiaError):
    """A value that does not fit the class it should become."""


def to_json(value: object) -> JsonValue:
    """Return `value` (dataclass, enum, path, tuple, dict, bytes or plain) as JSON has it.

    bytes become str, UTF-8 with surrogateescape, so that any path survives.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | Path):
        # Not os.fsdecode: the locale may have another encoding for names.
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    if dataclasses.is_dataclass(value):
        return {name: to_json(getattr(value, name)) for name in _field_names(value.__class__)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [to_json(item) for item in value]
    raise CodecError(f"{type(value).__name__} has no JSON form here")


def from_json(kind: type[T], value: JsonValue) -> T:
    """Return `value` as an instance of `kind`.

    Raises:
        CodecError: a field is missing, unknown or of another type; says which.
    """
    return typing.cast("T", _decode(kind, value, kind.__name__))


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """Return (name, type, required) of each field of dataclass `kind`."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    )


def _decode(kind: Any, value: JsonValue, where: str) -> object:
    while isinstance(kind, typing.NewType):
        kind = kind.__supertype__
    origin = typing.get_origin(kind)
    if origin is not None:
        return _decode_generic(kind, origin, value, where)
    if kind is type(None):
        _expect(value is None, "null", value, where)
        return None
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast("type", kind), value, where)
    return _decode_plain(kind, value, where)


def _decode_generic(kind: Any, origin: Any, value: JsonValue, where: str) -> object:
    arguments = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), "a list", value, where)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_decode(arguments[0], item, where) for item in value)
        _expect(len(value) == len(arguments), f"{len(arguments)} items", value, where)
        return tuple(_decode(arg, v, where) for arg, v in zip(arguments, value, strict=True))
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, where)
        return {
            _decode(arguments[0], key, where): _decode(arguments[1], item, f"{where}[{key!r}]")
            for key, item in value.items()
        }
    raise CodecError(f"{where}: {kind} is not a type that travels")


def _decode_union(arguments: tuple[Any, ...], value: JsonValue, where: str) -> object:
    if value is None and type(None) in arguments:
        return None
    others = [argument for argument in arguments if argument is not type(None)]
    if len(others) != 1:
        raise CodecError(f"{where}: a union of several types does not travel")
    return _decode(others[0], value, where)


def _decode_dataclass(kind: type, value: JsonValue, where: str) -> object:
    _expect(isinstance(value, dict), "an object", value, where)
    fields = _fields(kind)
    unknown = value.keys() - set(_field_names(kind))
    if unknown:
        raise CodecError(f"{where}: unknown field {min(unknown)!r}")
    found: dict[str, object] = {}
    for name, field_type, required in fields:
        if name in value:
            found[name] = _decode(field_type, value[name], f"{where}.{name}")
        elif required:
            raise CodecError(f"{where}: field {name!r} is missing")
    return kind(**found)


def _decode_plain(kind: Any, value: JsonValue, where: str) -> object:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError as exc:
            raise CodecError(f"{where}: {exc}") from exc
    if kind is float:
        _expect(
            isinstance(value, int | float) and not isinstance(value, bool), "float", value, where
        )
        return float(value)
    if kind is bytes or kind is Path:
        _expect(isinstance(value, str), "a string", value, where)
        return value.encode("utf-8", "surrogateescape") if kind is bytes else Path(value)
    if kind not in (bool, int, str):
        raise CodecError(f"{where}: {kind} is not a type that travels")
    _expect(type(value) is kind, kind.__name__, value, where)
    return typing.cast("object", value)


def _expect(holds: bool, wanted: str, value: JsonValue, where: str) -> None:
    if not holds:
        raise CodecError(f"{where}: {wanted} was expected, not {type(value).__name__}")
