"""Lists of rows that print as a table, and are one in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

Row = TypeVar("Row", bound=tuple[Any, ...])


class Table(list[Row], Generic[Row]):
    """A list of named tuples that can be read at a glance."""

    def __init__(self, rows: Iterable[Row] = (), *, empty: str = "nothing") -> None:
        """Hold *rows*; *empty* is said when there are none."""
        super().__init__(rows)
        self._empty = empty

    def __repr__(self) -> str:
        if not self:
            return self._empty
        lines = [_headings(self[0]), *(_cells(row) for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{html.escape(self._empty)}</p>"
        head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in _headings(self[0]))
        body = "".join(f"<tr>{''.join(map(_html_cell, _cells(row)))}</tr>" for row in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Fact(NamedTuple):
    """One line of a list of facts."""

    what: str
    value: Any


def _headings(row: Row) -> list[str]:
    fields: Sequence[str] = row._fields  # type: ignore[attr-defined]  # all rows are named tuples
    return [_heading(field) for field in fields]


def _heading(field: str) -> str:
    name, _, unit = field.rpartition("_")
    return f"{name.replace('_', ' ')} ({unit})" if name and unit in ("s", "bytes") else field.replace("_", " ")


def _cells(row: Row) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case tuple() | list():
            return ", ".join(map(str, value))
        case _:
            return " ".join(str(value).split())


def _html_cell(text: str) -> str:
    return f'<td style="text-align:left">{html.escape(text)}</td>'
