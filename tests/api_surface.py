"""The public names, as text: `python tests/api_surface.py > tests/data/api.txt`.

Public is what a package or a module of `MODULES` lists in `__all__`; of a class, what has no leading
underscore, its own or inherited from a class of ours, and `__init__`.

Rules of this file: the text is made of the sources alone, so that it is the same on every Python: nothing is
imported, and no repr is asked for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"
MODULES = (
    "agentrun_pytest",
    "agentrun_proto",
    "agentrun_transports",
    "agentrun_transports.credentials",
    "agentrun_transports.embedding",
    "agentrun_transports.emulator",
    "agentrun_transports.opentelemetry",
    "agentrun_transports.testing",
    "agentrun_transports.testing.conformance",
)

Statement = ast.stmt
CONTENT = (ast.Dict, ast.DictComp, ast.List, ast.Set, ast.Tuple)  # values that are told by their name alone


@dataclass(frozen=True, slots=True)
class Definition:
    """Where a name is bound: the statement, what stands after it, and its module."""

    module: str
    node: Statement
    after: Statement | None = None

    @property
    def docstring(self) -> str | None:
        """Its own docstring; of an assignment, the string that stands below it."""
        if isinstance(self.node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            return ast.get_docstring(self.node)
        return _string(self.after)


def _text(node: ast.AST) -> str:
    return ast.unparse(node).replace("lambda :", "lambda:")  # as Python 3.10 writes it


def _string(node: Statement | None) -> str | None:
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return node.value.value
    return None


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module of ours."""
    path = SRC.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def ours(module: str) -> bool:
    return module.partition(".")[0] in {"agentrun_proto", "agentrun_transports"}


def public(module: str) -> list[str]:
    """What a module lists in `__all__`; without one, what it defines under a public name."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and _text(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
    return sorted({name for name, _, _ in _bound(tree(module).body) if not name.startswith("_")})


def _bound(body: list[Statement]) -> Iterator[tuple[str, Statement, Statement | None]]:
    """What a body defines: name, statement, and what stands after it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node, after
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node, after
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node, after


@cache
def find(module: str, name: str) -> Definition | None:
    """The definition of a name as a module sees it, imports followed; None where it is not ours."""
    for bound, node, after in _bound(tree(module).body):
        if bound == name:
            return Definition(module, node, after)
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    source = _source(module, node)
                    return find(source, alias.name) if ours(source) else None
    return None


def _source(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = (SRC.joinpath(*module.split("."))).is_dir()
    parts = module.split(".")[: len(module.split(".")) - node.level + is_package]
    return ".".join([*parts, *filter(None, [node.module])])


def members(definition: Definition) -> dict[str, list[Definition]]:
    """The public members of a class and of its bases: name -> its definitions, the nearest first."""
    assert isinstance(definition.node, ast.ClassDef)
    found: dict[str, list[Definition]] = {}
    nearest: dict[str, list[Definition]] = {}
    for name, node, after in _bound(definition.node.body):
        nearest.setdefault(name, []).append(Definition(definition.module, node, after))
        if name == "__init__" and isinstance(node, ast.FunctionDef):
            for attribute, inner in _attributes(node):
                nearest.setdefault(attribute, []).append(Definition(definition.module, inner))
    for base in definition.node.bases:
        parent = find(definition.module, _text(base).partition("[")[0])
        if parent is not None and isinstance(parent.node, ast.ClassDef):
            for name, definitions in members(parent).items():
                found[name] = definitions + found.get(name, [])
    for name, definitions in nearest.items():
        if name == "__init__" or not name.startswith("_"):
            found[name] = definitions + found.get(name, [])
    return found


def _attributes(init: ast.FunctionDef) -> Iterator[tuple[str, Statement]]:
    """The public attributes that a constructor sets."""
    for node in ast.walk(init):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
                    yield target.attr, node


def line(name: str, node: Statement) -> str:
    """A definition in a line."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {_text(node.returns)}" if node.returns else ""
        decorators = "".join(
            f"@{_text(each)} "
            for each in node.decorator_list
            if _text(each) in {"classmethod", "staticmethod", "property", "overload", "abstractmethod"}
        )
        return f"{decorators}{kind} {name}({_text(node.args)}){returns}"
    if isinstance(node, ast.ClassDef):
        made = [_text(each) for each in node.decorator_list]
        bases = ", ".join(map(ast.unparse, node.bases))
        return " ".join([*(f"@{each}" for each in made), f"class {name}" + (f"({bases})" if bases else "")])
    if isinstance(node, ast.AnnAssign):
        annotation = _text(node.annotation)
        shown = (
            isinstance(node.target, ast.Name)
            and node.value is not None
            and not isinstance(node.value, CONTENT)
        )
        return f"{name}: {annotation}" + (f" = {_text(node.value)}" if shown and node.value else "")
    assert isinstance(node, ast.Assign)
    if isinstance(node.targets[0], ast.Name) and not isinstance(node.value, CONTENT):
        return f"{name} = {_text(node.value)}"
    return name  # an attribute: where its value comes from is nobody's business


def surface() -> str:
    """All of it: a module, its names below it, and their members below them."""
    lines: list[str] = []
    for module in MODULES:
        lines += [module, ""]
        for name in public(module):
            definition = find(module, name)
            if definition is None or name == "__version__":
                lines.append(f"    {name}")
                continue
            lines.append(f"    {line(name, definition.node)}")
            if isinstance(definition.node, ast.ClassDef):
                for member, definitions in sorted(members(definition).items()):
                    # Overloads are told all; else the nearest definition is the one that counts.
                    nearest = [
                        one for one in definitions if "@overload" in line(member, one.node)
                    ] or definitions[:1]
                    lines += [f"        {line(member, one.node)}" for one in nearest]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(surface(), end="")
