"""The part of the Logging query language that is served.

AND, OR, NOT (or `-`), parentheses, juxtaposition as AND; `=` `!=` `<` `<=` `>` `>=` and `:` (has) on `timestamp`,
`receiveTimestamp`, `severity`, `logName`, `insertId`, `textPayload`, `trace`, `spanId`, `resource.type`,
`resource.labels.X`, `labels.X` and `jsonPayload.X…`; a parenthesised list of values joined by OR or AND.
OR binds tighter than AND, as in the real language. Anything else is INVALID_ARGUMENT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local_cloud.errors import ServiceError
from local_cloud.gcp.logging.lines import Entry, parse_time, severity_number

Predicate = Callable[[Entry], bool]
_TOKEN = re.compile(
    r"""\s+|--[^\n]*|(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<op>!=|<=|>=|=~|!~|=|<|>|:)|(?P<paren>[()])|(?P<dot>\.)"""
    r"""|(?P<word>[^\s"'()=<>!:.~\\-][^\s"'()=<>!:.~\\]*)|(?P<minus>-)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_MAX_LENGTH = 20_000
_MAX_DEPTH = 64
_PLAIN = {
    "logName": "log_name", "log_name": "log_name", "insertId": "insert_id", "insert_id": "insert_id", "trace": "trace",
    "spanId": "span_id", "textPayload": "text", "text_payload": "text",
}  # fmt: skip
_OWNERS = {"job_name": "job", "service_name": "service", "revision_name": "revision"}
_TIMES = {"timestamp": "timestamp", "receiveTimestamp": "received", "receive_timestamp": "received"}


@dataclass(slots=True)
class Bounds:
    """What a filter demands at its top level: enough to leave out files and chunks without reading them."""

    execution: str | None = None
    job: str | None = None
    service: str | None = None
    revision: str | None = None
    log_names: set[str] | None = None
    since: int = 0
    until: int = 1 << 63


@dataclass(slots=True)
class Filter:
    """A parsed filter."""

    matches: Predicate
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class _Comparison:
    path: tuple[str, ...]
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    children: tuple[_Node | _Comparison, ...]


def parse(text: str) -> Filter:
    """Reads a filter; raises ServiceError INVALID_ARGUMENT."""
    if len(text) > _MAX_LENGTH:
        raise ServiceError("INVALID_ARGUMENT", f"The filter is longer than {_MAX_LENGTH} characters.")
    parser = _Parser(_tokens(text))
    if parser.done():
        return Filter(lambda _entry: True)
    tree = parser.conjunction(0)
    if not parser.done():
        parser.refuse(f"unexpected '{parser.peek()[1]}'")
    return Filter(_compile(tree), _bounds(tree))


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ServiceError("INVALID_ARGUMENT", f"Unparseable filter: syntax error at column {position + 1}.")
        position = match.end()
        if match.lastgroup is not None:
            found.append((match.lastgroup, match[0]))
    return found


def _unquote(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        return _ESCAPES.get(code, code)

    return _ESCAPE.sub(escape, text[1:-1])


class _Parser:
    """A recursive descent: conjunction → disjunction → negation → term."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def done(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if not self.done() else ("end", "end of filter")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self._at += 1
        return token

    def refuse(self, why: str) -> ServiceError:
        raise ServiceError("INVALID_ARGUMENT", f"Unparseable filter: {why}.")

    def conjunction(self, depth: int) -> _Node | _Comparison:
        if depth > _MAX_DEPTH:
            self.refuse("nested too deeply")
        parts = [self._disjunction(depth)]
        while not self.done() and self.peek() != ("paren", ")"):
            if self.peek() == ("word", "AND"):
                self.take()
            parts.append(self._disjunction(depth))
        return parts[0] if len(parts) == 1 else _Node("and", tuple(parts))

    def _disjunction(self, depth: int) -> _Node | _Comparison:
        parts = [self._negation(depth)]
        while self.peek() == ("word", "OR"):
            self.take()
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else _Node("or", tuple(parts))

    def _negation(self, depth: int) -> _Node | _Comparison:
        if depth > _MAX_DEPTH:
            self.refuse("nested too deeply")
        if self.peek() in (("word", "NOT"), ("minus", "-")):
            self.take()
            return _Node("not", (self._negation(depth + 1),))
        if self.peek() == ("paren", "("):
            self.take()
            inner = self.conjunction(depth + 1)
            if self.take() != ("paren", ")"):
                self.refuse("missing ')'")
            return inner
        return self._comparison()

    def _comparison(self) -> _Node | _Comparison:
        path = [self._name()]
        while self.peek()[0] == "dot":
            self.take()
            path.append(self._name())
        kind, op = self.take()
        if kind != "op":
            self.refuse("a bare search term is not served by the local cloud; compare a field")
        if op in ("=~", "!~"):
            self.refuse("regular expressions are not served by the local cloud")
        _check_path(tuple(path))
        if self.peek() == ("paren", "("):
            return self._value_list(tuple(path), op)
        return _comparison(tuple(path), op, self._value())

    def _value_list(self, path: tuple[str, ...], op: str) -> _Node:
        self.take()
        parts, joins = [_comparison(path, op, self._value())], set()
        while self.peek() != ("paren", ")"):
            join = self.take()[1]
            if join not in ("AND", "OR"):
                self.refuse("values in parentheses are joined by OR or AND")
            joins.add(join)
            parts.append(_comparison(path, op, self._value()))
        self.take()
        if len(joins) > 1:
            self.refuse("mixed OR and AND in a list of values")
        return _Node("and" if joins == {"AND"} else "or", tuple(parts))

    def _name(self) -> str:
        kind, text = self.take()
        if kind == "string":
            return _unquote(text)
        if kind != "word":
            self.refuse(f"expected a field name, got '{text}'")
        return text

    def _value(self) -> str:
        kind, text = self.take()
        if kind == "string":
            return _unquote(text)
        sign = ""
        if kind == "minus":
            sign = "-"
            kind, text = self.take()
        if kind != "word":
            self.refuse(f"expected a value, got '{text}'")
        while self.peek()[0] == "dot":
            self.take()
            text += "." + self._name()
        return sign + text


def _check_path(path: tuple[str, ...]) -> None:
    head = path[0]
    single = head in _PLAIN or head in _TIMES or head == "severity"
    if (single and len(path) == 1) or path == ("resource", "type"):
        return
    if (head == "labels" and len(path) == 2) or (path[:2] == ("resource", "labels") and len(path) == 3):
        return
    if head in ("jsonPayload", "json_payload"):
        return
    raise ServiceError(
        "INVALID_ARGUMENT", f"Unparseable filter: the field '{'.'.join(path)}' is not served by the local cloud."
    )


def _comparison(path: tuple[str, ...], op: str, value: str) -> _Node | _Comparison:
    if path[0] in _TIMES and (op == ":" or parse_time(value) is None):
        raise ServiceError(
            "INVALID_ARGUMENT", f"Unparseable filter: '{value}' is not a timestamp to compare {path[0]} with."
        )
    if path[0] == "severity" and severity_number(value) is None and not value.isdecimal():
        raise ServiceError("INVALID_ARGUMENT", f"Unparseable filter: '{value}' is not a severity.")
    if op == "!=":
        return _Node("not", (_Comparison(path, "=", value),))
    return _Comparison(path, op, value)


def _compile(node: _Node | _Comparison) -> Predicate:
    if isinstance(node, _Comparison):
        return _test(node)
    parts = tuple(_compile(child) for child in node.children)
    if node.kind == "not":
        return lambda entry: not parts[0](entry)
    if node.kind == "and":
        return lambda entry: all(part(entry) for part in parts)
    return lambda entry: any(part(entry) for part in parts)


def _test(node: _Comparison) -> Predicate:
    head = node.path[0]
    if head in _TIMES:
        moment, attribute = parse_time(node.value) or 0, _TIMES[head]
        return lambda entry: _ordered(getattr(entry, attribute), node.op, moment)
    if head == "severity":
        number = severity_number(node.value)
        level = int(node.value) if number is None else number
        return lambda entry: _ordered(entry.severity, node.op, level)
    read = _reader(node.path)
    if node.op == ":" and node.value == "*":
        return lambda entry: read(entry) is not None
    return lambda entry: _compare(read(entry), node.op, node.value)


def _reader(path: tuple[str, ...]) -> Callable[[Entry], Any]:
    head = path[0]
    if head in _PLAIN:
        attribute = _PLAIN[head]
        return lambda entry: getattr(entry, attribute)
    if head == "labels":
        return lambda entry: entry.labels.get(path[1])
    if path[:2] == ("resource", "labels"):
        return lambda entry: entry.resource_labels.get(path[2])
    if head == "resource":
        return lambda entry: entry.resource_type

    def dig(entry: Entry) -> Any:
        value: Any = entry.json
        for part in path[1:]:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    return dig


def _compare(found: Any, op: str, wanted: str) -> bool:
    """Strings compare without case, as the language does; numbers and booleans by value."""
    if found is None:
        return False
    if isinstance(found, bool):
        return op in ("=", ":") and wanted.lower() == str(found).lower()
    if isinstance(found, int | float):
        try:
            return _ordered(float(found), "=" if op == ":" else op, float(wanted))
        except ValueError:
            return False
    if isinstance(found, list):
        return any(_compare(item, op, wanted) for item in found)
    if isinstance(found, dict):
        return op == ":" and wanted in found
    text, other = str(found).lower(), wanted.lower()
    return other in text if op == ":" else _ordered(text, op, other)


def _ordered(found: Any, op: str, wanted: Any) -> bool:
    if op in ("=", ":"):
        return bool(found == wanted)
    if op == "<":
        return bool(found < wanted)
    if op == "<=":
        return bool(found <= wanted)
    return bool(found > wanted) if op == ">" else bool(found >= wanted)


def _bounds(tree: _Node | _Comparison) -> Bounds:
    bounds = Bounds()
    for part in tree.children if isinstance(tree, _Node) and tree.kind == "and" else (tree,):
        if isinstance(part, _Comparison):
            _narrow(bounds, part)
        elif part.kind == "or" and all(_names_log(child) for child in part.children):
            bounds.log_names = {child.value.lower() for child in part.children if isinstance(child, _Comparison)}
    return bounds


def _names_log(node: _Node | _Comparison) -> bool:
    return isinstance(node, _Comparison) and _PLAIN.get(node.path[0]) == "log_name" and node.op == "="


def _narrow(bounds: Bounds, part: _Comparison) -> None:
    if _names_log(part):
        bounds.log_names = {part.value.lower()}
    elif part.path == ("labels", "run.googleapis.com/execution_name") and part.op == "=":
        bounds.execution = part.value
    elif part.op == "=" and part.path[:2] == ("resource", "labels") and part.path[-1] in _OWNERS:
        setattr(bounds, _OWNERS[part.path[-1]], part.value)
    elif part.path[0] == "timestamp":
        moment = parse_time(part.value) or 0
        if part.op in (">", ">=", "="):
            bounds.since = max(bounds.since, moment)
        if part.op in ("<", "<=", "="):
            bounds.until = min(bounds.until, moment)
