"""YAML as Pulumi reads it: YAML 1.2 with Go's notation of numbers and dates.

PyYAML's own values are those of YAML 1.1, where ``no`` is false and ``1:30`` is 90.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import yaml

#: Levels that a file may have; the deepest setting is on the fifth.
DEEPEST = 50
#: What is wrong with an escape such as one of half a pair of UTF-16.
NO_CHARACTER = "an escape that names no character"
_PREFIX = "tag:yaml.org,2002:"
_PLAIN, _TEXT = "plain", f"{_PREFIX}str"
_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEAN = {word: word.lower() == "true" for word in "true True TRUE false False FALSE".split()}
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9]\d*)")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
#: Digits of the longest integer that is a number to Pulumi: 64 of base 2, and their prefix.
_LONGEST = 66
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATE = re.compile(r"(\d{4})-(\d\d?)-(\d\d?)(?:([Tt ])(\d\d?):(\d\d?):(\d\d?)(\.\d+)?(Z?))?")


class YamlError(ValueError):
    """A text that is not YAML, or not what Pulumi takes; ``line`` counts from 1, 0: unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class ShallowLoader(yaml.SafeLoader):
    """Refuses what no file here needs, and what Python would give up at in the middle.

    That is what is nested deeply, and escapes that name no character.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node with all in it.

        Raises:
            yaml.MarkedYAMLError: it is too deep, or not YAML.
        """
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's
        if self._depth == DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"more than {DEEPEST} levels deep", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_scalar_node(self, anchor: Any) -> Any:
        """A scalar whose text can be written as UTF-8."""
        node = super().compose_scalar_node(anchor)
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise yaml.composer.ComposerError(None, None, NO_CHARACTER, node.start_mark)
        return node

    def fetch_double(self) -> Any:
        """A text in double quotes."""
        try:
            return super().fetch_double()
        except (OverflowError, ValueError) as error:
            mark = self.get_mark()
            raise yaml.scanner.ScannerError(None, None, NO_CHARACTER, mark) from error


class _Loader(ShallowLoader):
    """Leaves the meaning of a scalar without quotes and tag to this module."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]  # PyYAML's


def parse(data: bytes) -> Any:
    """The first document of a text; keys of mappings are texts.

    Raises:
        YamlError: it is not UTF-8, not YAML, has a key twice, or a value that Pulumi refuses.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError("is not UTF-8 text. Save it as UTF-8.", line) from None
    try:
        loader = _Loader(text)
        node = loader.get_node() if loader.check_node() else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}."
        raise YamlError(message, mark.line + 1 if mark else 0) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"is not valid YAML: {error.reason}.", line) from None
    return None if node is None else _value(node, ())


def _value(node: yaml.Node, within: tuple[yaml.Node, ...]) -> Any:
    if any(node is outer for outer in within):
        raise YamlError("refers to itself.", _line(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, (*within, node))
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, (*within, node)) for each in node.value]
    return _scalar(node)


def _mapping(node: yaml.MappingNode, within: tuple[yaml.Node, ...]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("has a key that is not text.", _line(key_node))
        value = _value(value_node, within)
        if key_node.tag == _PLAIN and key_node.value == "<<":
            # The first of several wins.
            for each in reversed(value if isinstance(value, list) else [value]):
                if not isinstance(each, dict):
                    raise YamlError("<< takes a mapping.", _line(key_node))
                merged |= each
            continue
        key = text_of(_scalar(key_node))
        if key in own:
            raise YamlError(f"has the key {key} twice. Remove one.", _line(key_node))
        own[key] = value
    return merged | own


def _scalar(node: yaml.Node) -> Any:
    text, tag = str(node.value), node.tag
    if tag == _PLAIN:
        return _plain(text, _line(node))
    if tag == _TEXT or not tag.startswith(_PREFIX):
        return text
    value = _plain(text, _line(node))
    kinds: dict[str, tuple[type, ...]] = {
        "null": (type(None),),
        "bool": (bool,),
        "int": (int,),
        "float": (int, float),
    }
    if not isinstance(value, kinds.get(tag.removeprefix(_PREFIX), ())):
        short = tag.replace(_PREFIX, "!!")
        raise YamlError(
            f"has the tag {short}, which cannot be read here. Leave it out.", _line(node)
        )
    return value


def _plain(text: str, line: int) -> Any:
    """A scalar without quotes."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _SPECIAL.fullmatch(text):
        raise YamlError(f"{text} is not a number that Pulumi takes. Write it in quotes.", line)
    if (date := _date(text)) is not None:
        return date
    number = _number(text.replace("_", "")) if text[0] in "+-.0123456789" else None
    return text if number is None else number


def _number(text: str) -> int | float | None:
    found = _INTEGER.fullmatch(text)
    if found and len(found[2]) <= _LONGEST:
        digits = found[2].lower()
        octal = digits.startswith("0") and digits.isdigit()
        value = int(digits, 8) if octal else int(digits, 0)
        value = -value if found[1] == "-" else value
        if -(2**63) <= value < 2**64:
            return value
    if not _FLOAT.fullmatch(text):
        return None
    value_float = float(text)
    if math.isinf(value_float):
        return None
    # JSON, which it goes through, has no other notation for a whole number.
    return int(Decimal(repr(value_float))) if _is_whole(value_float) else value_float


def _is_whole(value: float) -> bool:
    return value == int(value) and abs(value) < 1e21


def _date(text: str) -> str | None:
    """A date as Go writes it; other notations stay what they are."""
    found = _DATE.fullmatch(text)
    if not found:
        return None
    # With a T it needs a zone, with a space it has none.
    if ((found[4] or " ") != " " and not found[9]) or (found[4] == " " and found[9]):
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 2, 3, 5, 6, 7))
    fraction = (found[8] or "").rstrip("0").rstrip(".")
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def text_of(value: Any) -> str:
    """A scalar as the text that Pulumi passes on."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if 1e-6 <= abs(value) < 1e21:
            return format(Decimal(repr(value)), "f")
        return re.sub(r"e([-+])0+", r"e\1", repr(value))
    return str(value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
