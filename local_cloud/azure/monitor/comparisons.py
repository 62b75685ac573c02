"""Kusto's comparisons: which types compare, and how texts do."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from local_cloud.azure.monitor.tables import Row
from local_cloud.azure.monitor.tokens import QueryError

Read = Callable[[Row], Any]
NUMBERS = ("long", "real")
WORDS = frozenset(f"{word}{case}" for word in ("contains", "has", "startswith", "endswith") for case in ("", "_cs"))
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def compare(op: str, left: str, first: Read, right: str, second: Read) -> Callable[[Row], bool]:
    """A comparison of an expression of type `left` with one of type `right`; raises QueryError."""
    if left != right and not (left in NUMBERS and right in NUMBERS):
        raise _types(left, right)
    if left == "dynamic" or (left == "bool" and op not in ("==", "!=")):
        raise _types(left, right)
    if op in ("=~", "!~"):
        if left != "string":
            raise _types(left, right)
        wanted = op == "=~"
        return lambda row: (first(row).lower() == second(row).lower()) is wanted
    if left == "string" and op not in ("==", "!="):
        raise _types(left, right)
    if op == "!=":
        return lambda row: _differ(first(row), second(row))
    test = _OPERATORS[op]

    def work(row: Row) -> bool:
        one, other = first(row), second(row)
        return one is not None and other is not None and test(one, other)

    return work


def _differ(one: Any, other: Any) -> bool:
    """A null differs from a value, and null from null is null."""
    if one is None and other is None:
        return False
    return bool(one != other)


def contained(word: str, first: Read, second: Read) -> Callable[[Row], bool]:
    """`has`, `contains`, `startswith`, `endswith`, their `_cs` and `!` forms."""
    wanted = not word.startswith("!")
    plain = word.lstrip("!")
    exact, kind = plain.endswith("_cs"), plain.removesuffix("_cs")

    def work(row: Row) -> bool:
        one, other = first(row), second(row)
        one = one if isinstance(one, str) else "" if one is None else str(one)
        if kind == "has":
            return (_term(other, exact).search(one) is not None) is wanted
        if not exact:
            one, other = one.lower(), other.lower()
        found = other in one if kind == "contains" else getattr(one, kind)(other)
        return bool(found) is wanted

    return work


@lru_cache(maxsize=64)
def _term(text: str, exact: bool) -> re.Pattern[str]:
    """A whole term: letters and digits do not go on at its ends."""
    begin = r"(?<![^\W_])" if text[:1].isalnum() else ""
    end = r"(?![^\W_])" if text[-1:].isalnum() else ""
    return re.compile(begin + re.escape(text) + end, 0 if exact else re.IGNORECASE)


def _types(left: str, right: str) -> QueryError:
    text = f"Cannot compare values of types {left} and {right}. Try adding explicit casts"
    return QueryError("SemanticError", "SEM0064", text)
