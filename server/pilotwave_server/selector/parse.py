"""Read the text of a selector. Errors name the position and what was expected there."""

from __future__ import annotations

import re
from typing import NamedTuple

from pilotwave_protocol.errors import BadName
from pilotwave_protocol.names import FACT, check_model, check_selector_key, check_version
from pilotwave_server.errors import Invalid
from pilotwave_server.selector.ast import (
    BARE_WORD,
    ORDER,
    Condition,
    Op,
    Runs,
    Selector,
    plain_number,
)

MAX_LENGTH = 4096
MAX_CONDITIONS = 64
MAX_VALUES = 256
MAX_VALUE_LENGTH = 256

_SPACE = re.compile(r"\s*")
_SYMBOL = re.compile(r"==|!=|>=|<=|[=<>!,()*]")
_OPERATORS = {
    "=": Op.IN,
    "==": Op.IN,
    "!=": Op.NOT_IN,
    "in": Op.IN,
    "notin": Op.NOT_IN,
    ">": Op.GT,
    ">=": Op.GE,
    "<": Op.LT,
    "<=": Op.LE,
}
_AFTER_KEY = "one of = != > >= < <= in notin, or a comma"


class BadSelector(Invalid):
    """A selector that does not follow the grammar. `position` counts characters from 1."""

    code = "bad_selector"

    def __init__(self, position: int, sentence: str) -> None:
        super().__init__(f"selector, position {position}: {sentence}", position=position)
        self.position = position


class _Token(NamedTuple):
    kind: str  # symbol, word, text or end
    text: str
    at: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else ascii(self.text)[:60]


def parse(text: str, *, of_versions: bool = False) -> Selector:
    """Return the selector that `text` writes, or raise `BadSelector`.

    `of_versions`: it may ask what devices run (`runs detector<1.2`).
    """
    if len(text) > MAX_LENGTH:
        raise BadSelector(MAX_LENGTH + 1, f"expected at most {MAX_LENGTH} characters")
    found = _Parser(text).selector()
    if not of_versions:
        refuse_runs(found)
    return found


def refuse_runs(selector: Selector) -> None:
    """BadSelector where it asks what devices run, which labels and facts cannot tell."""
    for condition in selector.runs[:1]:
        raise BadSelector(
            condition.at,
            f"`{condition}` finds devices, but makes no group: a device would leave it by "
            "updating. Use labels or facts",
        )


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    def selector(self) -> Selector:
        if self._peek().text == "*" and self._peek().kind == "symbol":
            self._take()
            self._expect_end()
            return Selector(())
        conditions = [self._condition()]
        while self._peek().kind != "end":
            self._symbol(",", "a comma or the end")
            if len(conditions) == MAX_CONDITIONS:
                raise self._error(f"at most {MAX_CONDITIONS} conditions")
            conditions.append(self._condition())
        return Selector(
            tuple(c for c in conditions if isinstance(c, Condition)),
            tuple(c for c in conditions if isinstance(c, Runs)),
        )

    def _condition(self) -> Condition | Runs:
        if self._peek()[:2] == ("symbol", "!"):
            self._take()
            if self._asks_what_runs():
                at = self._take().at
                return Runs(self._model(), Op.UNSET, at=at)
            return Condition(self._key("a key after !"), Op.UNSET)
        if self._asks_what_runs():
            return self._runs()
        key_at = self._peek().at
        key = self._key("a condition, like site=berlin")
        token = self._peek()
        if token.kind == "end" or token[:2] == ("symbol", ","):
            return Condition(key, Op.SET)
        op = _OPERATORS.get(token.text) if token.kind in ("symbol", "word") else None
        if op is None:
            raise self._error(_AFTER_KEY)
        self._take()
        if token.text in ("in", "notin"):
            return Condition(key, op, tuple(token.text for token in self._values()))
        if op in ORDER:
            return Condition(key, op, (self._number(key, key_at),))
        return Condition(key, op, (self._value().text,))

    def _asks_what_runs(self) -> bool:
        """`runs` and a second word; a label may be called `runs`, too."""
        return (
            self._peek()[:2] == ("word", "runs")
            and self._tokens[self._next + 1][:2]
            not in (
                ("word", "in"),
                ("word", "notin"),
            )
            and self._tokens[self._next + 1].kind == "word"
        )

    def _runs(self) -> Runs:
        runs_at = self._take().at
        model = self._model()
        token = self._peek()
        if token.kind == "end" or token[:2] == ("symbol", ","):
            return Runs(model, Op.SET, at=runs_at)
        op = _OPERATORS.get(token.text) if token.kind in ("symbol", "word") else None
        if op is None:
            raise self._error(_AFTER_KEY)
        self._take()
        listed = token.text in ("in", "notin")
        values = self._values() if listed else [self._value()]
        return Runs(model, op, tuple(self._version(value) for value in values), at=runs_at)

    def _model(self) -> str:
        token = self._peek()
        if token.kind != "word":
            raise self._error("a model after runs")
        try:
            return check_model(self._take().text)
        except BadName as error:
            raise BadSelector(token.at, str(error)) from error

    def _version(self, token: _Token) -> str:
        try:
            return check_version(token.text)
        except BadName as error:
            raise BadSelector(token.at, str(error)) from error

    def _key(self, expected: str) -> str:
        token = self._peek()
        if token.kind != "word":
            raise self._error(expected)
        try:
            check_selector_key(token.text)
        except BadName as error:
            raise BadSelector(token.at, str(error)) from error
        return self._take().text

    def _value(self) -> _Token:
        token = self._peek()
        if token.kind not in ("word", "text"):
            raise self._error("a value; put odd characters in quotes")
        if len(token.text) > MAX_VALUE_LENGTH:
            raise BadSelector(
                token.at, f"expected a value of at most {MAX_VALUE_LENGTH} characters"
            )
        return self._take()

    def _values(self) -> list[_Token]:
        self._symbol("(", "( and a list of values")
        values = [self._value()]
        while self._peek()[:2] == ("symbol", ","):
            self._take()
            if len(values) == MAX_VALUES:
                raise self._error(f"at most {MAX_VALUES} values")
            values.append(self._value())
        self._symbol(")", "a comma or )")
        return values

    def _number(self, key: str, key_at: int) -> str:
        if key.removeprefix(FACT).startswith("runtime."):
            raise BadSelector(
                key_at, f"{key} is a version, not a number: expected = != in or notin"
            )
        token = self._peek()
        value = self._value().text
        if plain_number(value) is None:
            raise BadSelector(token.at, f"expected a number, like 20 or -1.5; got {token}")
        return value

    def _symbol(self, symbol: str, expected: str) -> None:
        if self._peek()[:2] != ("symbol", symbol):
            raise self._error(expected)
        self._take()

    def _expect_end(self) -> None:
        if self._peek().kind != "end":
            raise self._error("the end after * (it already selects every device)")

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _error(self, expected: str) -> BadSelector:
        token = self._peek()
        return BadSelector(token.at, f"expected {expected}; got {token}")


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while True:
        at = _end(_SPACE, text, at)
        if at == len(text):
            return [*found, _Token("end", "", at + 1)]
        if text[at] in "\"'":
            value, end = _quoted(text, at)
            found.append(_Token("text", value, at + 1))
        else:
            symbol = _SYMBOL.match(text, at)
            kind = "symbol" if symbol else "word"
            end = symbol.end() if symbol else _end(BARE_WORD, text, at)
            found.append(_Token(kind, text[at:end], at + 1))
        at = end


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Return the text between the quotes and the position after the closing one."""
    out: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == text[start]:
            return "".join(out), at + 1
        if char == "\\":
            at += 1
            if text[at : at + 1] not in ("\\", '"', "'"):
                raise BadSelector(at + 1, "expected a quote or a backslash after a backslash")
            char = text[at]
        out.append(char)
        at += 1
    raise BadSelector(start + 1, f"expected a closing {text[start]}; the text ended first")
