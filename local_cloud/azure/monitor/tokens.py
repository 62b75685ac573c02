"""The words of the Kusto Query Language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

_MAX_LENGTH = 100_000
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<verbatim>[hH]?@(?:"(?:[^"]|"")*"|'(?:[^']|'')*'))
    |(?P<string>[hH]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<datetime>datetime\s*\(\s*(?P<moment>[^()"']*)\))
    |(?P<timespan>\d+(?:\.\d+)?(?:d|h|m|s|ms|microsecond|tick)(?![A-Za-z0-9_]))
    |(?P<real>\d+\.\d+(?:[eE][+-]?\d+)?)
    |(?P<long>\d{1,30}(?![A-Za-z0-9_]))
    |(?P<negated>!(?:contains_cs|contains|has_cs|has|startswith_cs|startswith|endswith_cs|endswith|in~|in)(?![A-Za-z0-9_]))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*~?)
    |(?P<op>==|=~|!~|!=|<=|>=|[<>=|,().\[\]\-+*;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


class QueryError(Exception):
    """A query that is malformed (`SyntaxError`) or means nothing (`SemanticError`)."""

    def __init__(self, kind: str, code: str, message: str, **place: Any) -> None:
        super().__init__(message)
        self.kind, self.code, self.message, self.place = kind, code, message, place


@dataclass(frozen=True, slots=True)
class Token:
    """One word: its kind, its text (for strings: what it means), and where it stands (line from 1, column from 0)."""

    kind: str
    text: str
    line: int = 0
    column: int = 0

    def refuse(self) -> NoReturn:
        """Says that the query cannot be parsed here."""
        message = f"Query could not be parsed at '{self.text}' on line [{self.line},{self.column}]"
        raise QueryError("SyntaxError", "SYN0002", message, line=self.line, pos=self.column, token=self.text)


def tokens(text: str) -> list[Token]:
    """The words of a query, ended by one of kind `end`; raises QueryError."""
    if len(text) > _MAX_LENGTH:
        raise QueryError("SyntaxError", "SYN0002", f"The query is longer than {_MAX_LENGTH} characters.")
    found, at, line, begin = [], 0, 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            Token("char", text[at], line, at - begin).refuse()
        kind, value = match.lastgroup or "", match[0]
        if kind != "space":
            found.append(Token(kind, _meaning(kind, match), line, at - begin))
        if "\n" in value:
            line += value.count("\n")
            begin = at + value.rfind("\n") + 1
        at = match.end()
    return [*found, Token("end", "", line, at - begin)]


def _meaning(kind: str, match: re.Match[str]) -> str:
    value = match[0]
    if kind == "datetime":
        return match["moment"].strip()
    if kind not in ("string", "verbatim"):
        return value
    value = value.lstrip("hH")
    if kind == "verbatim":
        quote = value[1]
        return value[2:-1].replace(quote * 2, quote)
    units = _ESCAPE.sub(_escape, value[1:-1])
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # two escapes may be one character


def _escape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "uUx" and len(code) > 1:
        number = int(code[1:], 16)
    elif code[0] in "01234567":
        number = int(code, 8)
    elif code in _ESCAPES:
        return _ESCAPES[code]
    else:
        raise QueryError("SyntaxError", "SYN0002", f"Query could not be parsed: unknown escape '\\{code}'.")
    if number > 0x10FFFF:
        raise QueryError("SyntaxError", "SYN0002", f"Query could not be parsed: unknown escape '\\{code}'.")
    return chr(number)
