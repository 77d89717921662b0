"""What the emulator's sandboxes can run: a sliver of Python, and a handful of commands.

Nothing here executes code: a program is parsed, and what is understood is worked out on values. What is not
understood is refused in the words of the emulator, so that nobody takes it for the service's answer.

Understood of Python: ``print(...)`` and assignment to names, over numbers, strings, booleans, None, and the
operators ``+ - * / // % **``, comparisons, f-strings without format. Of commands: ``echo pwd true false ls
cat``.
"""

from __future__ import annotations

import ast
import operator
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MAX_CODE = 20_000
# Bounds on what one operation may make: bits of a whole number, characters of a text.
_MAX_BITS = 4096
_MAX_TEXT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a program or a command printed, and its exit code."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


class _NotUnderstood(Exception):
    """The program is more than this evaluator knows."""


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: operator.mod,
    ast.Pow: lambda left, right: left**right,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def run_python(code: str) -> Outcome:
    """Work out a small program.

    >>> run_python("x = 6\\nprint('answer', x * 7)").stdout
    'answer 42\\n'
    >>> run_python("import os").exit_code
    1
    """
    if len(code) > _MAX_CODE:
        return Outcome(stderr=f"emulator: a program may have {_MAX_CODE} characters\n", exit_code=1)
    lines: list[str] = []
    error = ""
    try:
        _run(ast.parse(code), lines)
    except _NotUnderstood as reason:
        known = "print(...) and assignments over numbers and strings"
        error = f"emulator: {reason} is beyond it; it works out {known}"
    except (ArithmeticError, TypeError, ValueError, NameError, SyntaxError) as reason:
        error = f"{type(reason).__name__}: {reason}"
    except (RecursionError, MemoryError):
        error = "emulator: the program is nested too deeply"
    stdout = "".join(f"{line}\n" for line in lines)
    return Outcome(stdout=stdout, stderr=error and f"{error}\n", exit_code=1 if error else 0)


def _run(tree: ast.Module, lines: list[str]) -> None:
    names: dict[str, Any] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=arguments, keywords=[])):
                lines.append(" ".join(str(_value(argument, names)) for argument in arguments))
            case ast.Expr(value=value):
                _value(value, names)
            case ast.Pass():
                pass
            case _:
                raise _NotUnderstood(type(statement).__name__)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name):
            if name not in names:
                raise NameError(f"name {name!r} is not defined")
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(type(op), _value(left, names), _value(right, names))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(left, names), _value(right, names))
        case ast.JoinedStr(values=parts):
            return _bounded("".join(str(_value(part, names)) for part in parts))
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return _value(value, names)
        case _:
            raise _NotUnderstood(type(node).__name__)


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    """Apply an operator, refusing what would make something huge before it is made."""
    texts = [side for side in (left, right) if isinstance(side, str)]
    if op is ast.Mod and texts:
        raise _NotUnderstood("formatting with %")
    if op is ast.Mult and len(texts) == 1:
        times = right if isinstance(left, str) else left
        if isinstance(times, int) and len(texts[0]) * times > _MAX_TEXT:
            raise _NotUnderstood("a text that long")
    if (
        op is ast.Pow
        and isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() * right > _MAX_BITS
    ):
        raise _NotUnderstood("a number that large")
    return _bounded(_BINARY[op](left, right))


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise _NotUnderstood("a complex number")
    if (isinstance(value, int) and value.bit_length() > _MAX_BITS) or (
        isinstance(value, str) and len(value) > _MAX_TEXT
    ):
        raise _NotUnderstood("a value that large")
    return value


# What a command may ask of its sandbox: list a directory, read a file. Both raise FileNotFoundError.
List = Callable[[str], list[str]]
Read = Callable[[str], str]


def run_command(command: str, cwd: str, *, list_directory: List, read_text: Read) -> Outcome:
    """Work out a command line over the sandbox's own files; no process is started.

    >>> run_command("echo 'a  b' c", "/", list_directory=lambda path: [], read_text=lambda path: "").stdout
    'a  b c\\n'
    >>> run_command("rm -rf /", "/", list_directory=lambda path: [], read_text=lambda path: "").exit_code
    127
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        return Outcome(stderr=f"emulator: {error}\n", exit_code=2)
    try:
        match words:
            case []:
                return Outcome()
            case ["echo", *rest]:
                return Outcome(stdout=f"{' '.join(rest)}\n")
            case ["pwd"]:
                return Outcome(stdout=f"{cwd}\n")
            case ["true"]:
                return Outcome()
            case ["false"]:
                return Outcome(exit_code=1)
            case ["ls", *rest] if len(rest) <= 1:
                return Outcome(
                    stdout="".join(f"{name}\n" for name in list_directory(rest[0] if rest else cwd))
                )
            case ["cat", *rest] if rest:
                return Outcome(stdout="".join(read_text(path) for path in rest))
            case _:
                known = "echo, pwd, true, false, ls [PATH], cat PATH..."
                return Outcome(
                    stderr=f"emulator: {command!r} is not known here; {known} are\n", exit_code=127
                )
    except FileNotFoundError as error:
        return Outcome(stderr=f"{words[0]}: {error}\n", exit_code=1)
