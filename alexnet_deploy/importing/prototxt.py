"""Read protobuf's text format, in which Caffe's users describe networks, without a schema."""

import re

from alexnet_deploy.importing.messages import Message, MessageError

_MAX_CHARACTERS = 2**22
_MAX_DEPTH = 32
_TOKEN = re.compile(
    r"""(?:\s++|\#[^\n]*+)*+
    (?: (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
      | (?P<number> [-+]?(?:0[xX][0-9a-fA-F]++ | (?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?[fF]?)
        (?!\w) )
      | (?P<word> -?[A-Za-z_][A-Za-z0-9_]* )
      | (?P<mark> [][{}<>:;,] )
      | (?P<end> \Z ) )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}


def parse_prototxt(text: str) -> Message:
    """Return the message that `text` writes out.

    Raises:
        MessageError: it is not in the text format; the error names the line.
    """
    if len(text) > _MAX_CHARACTERS:
        raise MessageError(f"it has {len(text):,} characters, expected at most {_MAX_CHARACTERS:,}")
    return _Parser(text).message()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._next = text, 0
        self._kind, self._token = "", ""
        self._advance()

    def message(self) -> Message:
        outermost = Message()
        open_: list[tuple[Message, str]] = [(outermost, "")]  # with the mark that closes it
        while self._kind != "end" or len(open_) > 1:
            message, closing = open_[-1]
            if closing and self._token == closing and self._kind == "mark":
                self._advance()
                open_.pop()
            elif self._kind == "word":
                name = self._advance()
                has_colon = self._skip(":")
                if self._token in _CLOSING and self._kind == "mark":
                    nested = Message()
                    message.add(name, nested)
                    open_.append((nested, _CLOSING[self._advance()]))
                elif has_colon:
                    self._add_values(message, name)
                else:
                    raise self._error('":" or "{"')
                if len(open_) > _MAX_DEPTH:
                    raise MessageError(f"it is nested more than {_MAX_DEPTH} levels deep")
            else:
                raise self._error("the name of a field")
            if not self._skip(","):
                self._skip(";")
        return outermost

    def _add_values(self, message: Message, name: str) -> None:
        if not self._skip("["):
            message.add(name, self._value())
            return
        while not self._skip("]"):
            message.add(name, self._value())
            if not self._skip(",") and self._token != "]":
                raise self._error('"," or "]"')

    def _value(self) -> str | int | float:
        if self._kind == "string":
            parts = []
            while self._kind == "string":  # adjacent ones are one
                parts.append(_ESCAPE.sub(_unescaped, self._advance()[1:-1]))
            return "".join(parts)
        if self._kind == "number":
            return _number(self._advance())
        if self._kind != "word":
            raise self._error("a value")
        word = self._advance()
        return float(word) if word.lower().lstrip("-") in ("inf", "infinity", "nan") else word

    def _skip(self, mark: str) -> bool:
        is_there = self._kind == "mark" and self._token == mark
        if is_there:
            self._advance()
        return is_there

    def _advance(self) -> str:
        """Go to the next token, and return the one before it."""
        before = self._token
        match = _TOKEN.match(self._text, self._next)
        if match is None or match.lastgroup is None:
            raise MessageError(f"line {self._line()} is not in the text format of prototxt files")
        self._kind, self._token = match.lastgroup, match[match.lastgroup]
        self._next = match.end()
        return before

    def _line(self) -> int:
        return self._text.count("\n", 0, self._next) + 1

    def _error(self, expected: str) -> MessageError:
        came = self._token[:40] or "the end"
        return MessageError(f"line {self._line()}: {came!r}, expected {expected}")


def _number(token: str) -> int | float:
    if re.fullmatch(r"[-+]?\d+", token):
        digits = token.lstrip("+-")
        is_octal = re.fullmatch("0[0-7]+", digits) is not None
        number = int(digits, 8 if is_octal else 10) if len(digits) < 20 else float(digits)
        return -number if token.startswith("-") else number
    if "x" in token.lower():
        return int(token, 16)
    return float(token.rstrip("fF"))


def _unescaped(match: re.Match[str]) -> str:
    octal, hexadecimal, letter = match.groups()
    if letter is not None:
        return _LETTERS.get(letter, letter)
    return chr(int(octal, 8) if octal is not None else int(hexadecimal, 16))
