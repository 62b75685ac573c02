"""Scalar expressions of the Kusto Query Language: what stands in `where`, `extend`, `project` and `order by`.

Every expression has a type, known before any row is read. Types: string, datetime, timespan, long, real, bool, dynamic.
A null is None; strings are never null.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local_cloud.azure.monitor.comparisons import NUMBERS, WORDS, compare, contained
from local_cloud.azure.monitor.functions import FUNCTIONS
from local_cloud.azure.monitor.moments import parse_moment, parse_timespan
from local_cloud.azure.monitor.tables import INGESTED, TICK, Row
from local_cloud.azure.monitor.tokens import QueryError, Token

_MAX_DEPTH = 64
_ORDERED = ("==", "!=", "=~", "!~", "<", "<=", ">", ">=")
_PAIRED = ("datetime", "timespan")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `constant`: it is the same for every row. `name`: that of a bare column, or of
    `ingestion_time()`. `parts`: the operands of an `and`, or (left, operator, right) of a comparison."""

    kind: str
    read: Callable[[Row], Any]
    constant: bool = False
    name: str = ""
    parts: tuple[Any, ...] = ()


class Words:
    """The words of a query, read one after the other."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> Token:
        """The next word."""
        return self._tokens[self._at]

    def take(self) -> Token:
        """The next word, which is passed."""
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def back(self) -> None:
        """Unreads the last word."""
        self._at -= 1

    def takes(self, kind: str, *texts: str) -> Token | None:
        """The next word when it is one of these."""
        token = self.peek()
        return self.take() if token.kind == kind and token.text in texts else None

    def want(self, kind: str, text: str = "") -> Token:
        """The next word, which must be this one; raises QueryError."""
        token = self.take()
        if token.kind != kind or (text and token.text != text):
            token.refuse()
        return token


class Expressions:
    """Reads expressions over the columns (name → type) that there are."""

    def __init__(self, words: Words, columns: Mapping[str, str], operator: str) -> None:
        self._words = words
        self._columns = columns
        self._operator = operator
        self._depth = 0

    def read(self) -> Expression:
        """An expression; raises QueryError."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._words.peek().refuse()
        found = self._joined("or", lambda: self._joined("and", self._comparison))
        self._depth -= 1
        return found

    def predicate(self) -> Expression:
        """An expression that is true or false."""
        found = self.read()
        if found.kind != "bool":
            raise _semantic("SEM0139", f"'{self._operator}' operator: the predicate must be of type bool")
        return found

    def _joined(self, word: str, inner: Callable[[], Expression]) -> Expression:
        parts = [inner()]
        while self._words.takes("word", word):
            parts.append(inner())
        if len(parts) == 1:
            return parts[0]
        if any(part.kind != "bool" for part in parts):
            raise _semantic("SEM0139", f"'{word}' needs operands of type bool")
        every, reads = all if word == "and" else any, [part.read for part in parts]
        joined = tuple(parts) if word == "and" else ()
        return Expression("bool", lambda row: every(read(row) for read in reads), parts=joined)

    def _comparison(self) -> Expression:
        left = self._sum()
        token = self._words.peek()
        if token.kind == "op" and token.text in _ORDERED:
            self._words.take()
            right = self._sum()
            return Expression(
                "bool",
                compare(token.text, left.kind, left.read, right.kind, right.read),
                parts=(left, token.text, right),
            )
        word = token.text
        if (token.kind == "word" and word in ("in", "in~")) or (token.kind == "negated" and word in ("!in", "!in~")):
            self._words.take()
            return self._among(left, word)
        if token.kind in ("word", "negated") and word.lstrip("!") in WORDS:
            self._words.take()
            right = self._sum()
            if left.kind not in ("string", "dynamic") or right.kind != "string":
                raise _semantic("SEM0025", f"'{word}' needs operands of type string")
            return Expression("bool", contained(word, left.read, right.read))
        return left

    def _among(self, left: Expression, word: str) -> Expression:
        self._words.want("op", "(")
        equal = "=~" if word.endswith("~") else "=="
        tests: list[Callable[[Row], bool]] = []
        listed: list[Expression] = []
        while not tests or self._words.takes("op", ","):
            right = self._sum()
            listed.append(right)
            tests.append(compare(equal, left.kind, left.read, right.kind, right.read))
        self._words.want("op", ")")
        wanted = not word.startswith("!")
        constant = all(each.constant for each in listed)
        among = Expression("dynamic", lambda row: [each.read(row) for each in listed], constant)
        return Expression("bool", lambda row: any(test(row) for test in tests) is wanted, parts=(left, word, among))

    def _sum(self) -> Expression:
        left = self._signed()
        while token := self._words.takes("op", "+", "-"):
            left = _add(left, self._signed(), -1 if token.text == "-" else 1)
        return left

    def _signed(self) -> Expression:
        if self._words.takes("op", "-"):
            inner = self._signed()
            if inner.kind not in (*NUMBERS, "timespan"):
                raise _semantic("SEM0025", "'-' needs an operand of a numeric type or timespan")
            return Expression(inner.kind, lambda row: None if (v := inner.read(row)) is None else -v, inner.constant)
        return self._path()

    def _path(self) -> Expression:
        found = self._primary()
        while token := self._words.takes("op", ".", "["):
            if found.kind != "dynamic":
                raise _semantic("SEM0023", "Path expression can be applied only to an expression of type dynamic")
            if token.text == ".":
                key: Any = self._words.want("word").text
            else:
                inner = self._words.take()
                if inner.kind not in ("string", "verbatim", "long"):
                    inner.refuse()
                key = int(inner.text) if inner.kind == "long" else inner.text
                self._words.want("op", "]")
            found = Expression("dynamic", _step(found.read, key))
        return found

    def _primary(self) -> Expression:
        token = self._words.take()
        if token.kind == "op" and token.text == "(":
            inner = self.read()
            self._words.want("op", ")")
            return inner
        if token.kind == "op" and token.text == "[":
            name = self._words.take()
            if name.kind not in ("string", "verbatim"):
                name.refuse()
            self._words.want("op", "]")
            return self._column(name.text)
        if token.kind == "word":
            if self._words.peek().kind == "op" and self._words.peek().text == "(":
                return self._call(token)
            if token.text in ("true", "false"):
                return _constant("bool", token.text == "true")
            return self._column(token.text)
        return _literal(token)

    def _column(self, name: str) -> Expression:
        kind = self._columns.get(name)
        if kind is None:
            text = f"'{self._operator}' operator: Failed to resolve column or scalar expression named '{name}'"
            raise _semantic("SEM0100", text)
        return Expression(kind, lambda row: row[name], name=name)

    def _call(self, token: Token) -> Expression:
        self._words.want("op", "(")
        arguments: list[Expression] = []
        while not self._words.takes("op", ")"):
            if arguments:
                self._words.want("op", ",")
            arguments.append(self.read())
        kinds, reads = [each.kind for each in arguments], [each.read for each in arguments]
        if token.text == "ingestion_time" and not arguments:
            return Expression("datetime", lambda row: row.get(INGESTED), name=INGESTED)
        if token.text == "now" and not arguments:
            return _constant("datetime", time.time_ns() // TICK * TICK)
        if token.text == "ago" and kinds == ["timespan"] and arguments[0].constant:
            return _constant("datetime", time.time_ns() // TICK * TICK - reads[0]({}))
        known = FUNCTIONS.get(token.text)
        if known is None:
            token.refuse()
        if len(kinds) != 1 or (known.takes and kinds[0] not in known.takes):
            raise _semantic("SEM0219", f"{token.text}(): function expects other arguments")
        work, kind = known.work, kinds[0]
        return Expression(known.gives, lambda row: work(kind, reads[0](row)), arguments[0].constant)


def _constant(kind: str, value: Any) -> Expression:
    return Expression(kind, lambda _row: value, constant=True)


def _literal(token: Token) -> Expression:
    if token.kind in ("string", "verbatim"):
        return _constant("string", token.text)
    if token.kind == "datetime":
        moment = parse_moment(token.text.strip())
        if moment is None:
            raise QueryError(
                "SyntaxError", "SYN0002", f"Failed to parse datetime literal: 'datetime({token.text})'", line=token.line
            )
        return _constant("datetime", moment)
    if token.kind == "timespan":
        return _constant("timespan", parse_timespan(token.text))
    if token.kind == "long" and int(token.text) < 1 << 63:
        return _constant("long", int(token.text))
    if token.kind != "real":
        token.refuse()
    return _constant("real", float(token.text))


def _step(read: Callable[[Row], Any], key: Any) -> Callable[[Row], Any]:
    def dig(row: Row) -> Any:
        value = read(row)
        if isinstance(key, int):
            return value[key] if isinstance(value, list) and key < len(value) else None
        return value.get(key) if isinstance(value, dict) else None

    return dig


def _add(left: Expression, right: Expression, sign: int) -> Expression:
    kinds = (left.kind, right.kind)
    if kinds == ("datetime", "datetime") and sign < 0:
        kind = "timespan"
    elif kinds in (("datetime", "timespan"), ("timespan", "timespan")):
        kind = left.kind
    elif left.kind in NUMBERS and right.kind in NUMBERS:
        kind = "long" if kinds == ("long", "long") else "real"
    else:
        raise _semantic("SEM0064", f"Cannot add or subtract values of types {left.kind} and {right.kind}")

    def work(row: Row) -> Any:
        first, second = left.read(row), right.read(row)
        return None if first is None or second is None else first + sign * second

    return Expression(kind, work, left.constant and right.constant)


def _semantic(code: str, message: str) -> QueryError:
    return QueryError("SemanticError", code, message)
