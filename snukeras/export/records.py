"""Frozen records that files hold as JSON: read and checked once, written as they were read."""

import contextlib
import dataclasses
import functools
import types
import typing
from typing import Any, Self

from snukeras._files import JsonObject, JsonValue

#: Metadata of a field that is left out of the JSON where it is None.
OPTIONAL = {"optional": True}


def optional() -> Any:
    """Return a field of a record that is None by default and then left out of the JSON."""
    return dataclasses.field(default=None, metadata=OPTIONAL)


def named(key: str) -> Any:
    """Return a field of a record whose name in the JSON is a word that Python keeps to itself."""
    return dataclasses.field(metadata={"key": key})


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of the typed forms of JSON objects; `record["key"]` reads like the JSON does."""

    def __getitem__(self, key: str) -> Any:
        """Return a field by its name in the JSON.

        Raises:
            KeyError: There is no such field.
        """
        names = _names(type(self))  # type: ignore[arg-type]
        if key not in names:
            raise KeyError(f"{type(self).__name__} has no {key!r}; it has {', '.join(names)}")
        return getattr(self, names[key])

    def to_dict(self) -> JsonObject:
        """Return the JSON object."""
        return {
            field.metadata.get("key", field.name): _to_json(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not (field.metadata.get("optional") and getattr(self, field.name) is None)
        }

    @classmethod
    def from_dict(cls, data: JsonValue, where: str = "") -> Self:
        """Read a JSON object.

        Args:
            data: The object.
            where: Its place in the file, for the error.

        Raises:
            ValueError: A key is missing, unknown, or of another type; the message says where.
        """
        place = where or cls.__name__
        if not isinstance(data, dict):
            raise ValueError(f"{place} must be an object. Received: {_short(data)}")
        hints, names = _hints(cls), _names(cls)  # type: ignore[arg-type]
        needed = {
            field.metadata.get("key", field.name)
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if missing := needed - set(data):
            raise ValueError(f"{place} lacks {', '.join(sorted(missing))}")
        if unknown := set(data) - set(names):
            raise ValueError(f"{place} has an unknown key {min(unknown)!r}")
        return cls(
            **{
                names[key]: _read(hints[names[key]], value, f"{place}.{key}")
                for key, value in data.items()
            }
        )


@functools.cache
def _hints(cls: type[Record]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _names(cls: type[Record]) -> dict[str, str]:
    """Return the attribute of each key of the JSON."""
    return {field.metadata.get("key", field.name): field.name for field in dataclasses.fields(cls)}


def _to_json(value: Any) -> JsonValue:
    """Return the value of a field as JSON has it."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_to_json(part) for part in value]
    if isinstance(value, dict):
        return {key: _to_json(part) for key, part in value.items()}
    return value


def _read(hint: Any, value: JsonValue, where: str) -> Any:
    """Return a JSON value as the type that a field asks for."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        *others, last = (part for part in inner if part is not type(None))
        for kind in others:
            with contextlib.suppress(ValueError):
                return _read(kind, value, where)
        return _read(last, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], part, f"{where}[{i}]") for i, part in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(inner[1], part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if hint is float:
            return float(value)
        # JSON Schema takes 1.0 for an integer.
        if hint is int and value == int(value):
            return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    wanted = {tuple: "array", dict: "object"}.get(origin, getattr(hint, "__name__", str(hint)))
    raise ValueError(f"{where} must be of type {wanted}. Received: {_short(value)}")


def _short(value: JsonValue) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
