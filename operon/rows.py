"""A row of a result of SQL in a workflow: read by column name or by position, and the same again on replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Row(Mapping[str, Any]):
    """An immutable row. `row["seat"]`, `row[0]`, `dict(row)`; equal to another row with the same columns and values."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._columns = columns
        self._values = values

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, int):
            return self._values[key]
        try:
            return self._values[self._columns.index(key)]
        except ValueError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def values_tuple(self) -> tuple[Any, ...]:
        """The values in the order of the columns."""
        return self._values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and (self._columns, self._values) == (other._columns, other._values)

    def __hash__(self) -> int:
        return hash((self._columns, self._values))

    def __repr__(self) -> str:
        return f"<Row {' '.join(f'{name}={value!r}' for name, value in zip(self._columns, self._values, strict=True))}>"
