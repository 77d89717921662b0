"""The public names: none changes by accident, each has a docstring, and the pages speak of what there is."""

from __future__ import annotations

import ast
import builtins
import importlib
import keyword
import re
from pathlib import Path

import pytest

import api_surface

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "tests" / "data" / "api.txt"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [
    pytest.param(module, name, id=f"{module}.{name}")
    for module in api_surface.MODULES
    for name in api_surface.public(module)
]


def test_the_public_names_are_the_committed_ones():
    assert api_surface.surface() == COMMITTED.read_text(encoding="utf-8"), (
        "a public name has changed. Where that is meant: python tests/api_surface.py > tests/data/api.txt, "
        "and a line in CHANGELOG.md"
    )


@pytest.mark.parametrize("module", api_surface.MODULES)
def test_what_is_written_is_what_can_be_imported(module):
    imported = importlib.import_module(module)
    for name in api_surface.public(module):
        assert hasattr(imported, name)
        definition = api_surface.find(module, name)
        assert definition is not None
        if isinstance(definition.node, ast.ClassDef):
            kind = getattr(imported, name)
            for member, (nearest, *_) in api_surface.members(definition).items():
                if isinstance(nearest.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    assert hasattr(kind, member)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name_has_a_docstring(module, name):
    definition = api_surface.find(module, name)
    assert definition.docstring or name == "__version__"
    if isinstance(definition.node, ast.ClassDef):
        for member, definitions in api_surface.members(definition).items():
            callable_ones = [
                one for one in definitions if isinstance(one.node, (ast.FunctionDef, ast.AsyncFunctionDef))
            ]
            # What a class overrides may have its docstring where it is declared; a constructor, in its class.
            if callable_ones and member != "__init__":
                assert any(one.docstring for one in callable_ones), member


# --- the pages

CODE = re.compile(r"^```.*?^```$", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
# Names that look like ours and are another's: a field, an endpoint, kinds of the vendor's credentials.
OTHERS = frozenset({"Date", "Default", "Enum", "StsToken", "ecs_ram_role", "ram_role_arn"})


def vocabulary():
    """What is ours: public names with their members, the names of parameters and fields, and of the rooms."""
    names, dotted = {path.stem for path in api_surface.SRC.rglob("*.py")}, set(api_surface.MODULES)
    for module in api_surface.MODULES:
        for name in api_surface.public(module):
            definition = api_surface.find(module, name)
            names.add(name)
            dotted |= {name, f"{module}.{name}"}
            nodes = [definition.node]
            if isinstance(definition.node, ast.ClassDef):
                found = api_surface.members(definition)
                dotted |= {f"{name}.{member}" for member in found}
                names |= set(found)
                nodes = [one.node for definitions in found.values() for one in definitions]
            for node in nodes:
                names |= {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
    return names, dotted


WORDS, DOTTED = vocabulary()


def is_known(span):
    """Whether a name in a code span is one of ours, of Python's, or none that looks like ours."""
    if span in OTHERS or span in WORDS or span in DOTTED or keyword.iskeyword(span):
        return True
    first, _, rest = span.partition(".")
    if rest:  # else another's: a file, a host, a module of the standard library
        return not first.startswith("agentrun_") and first not in DOTTED
    looks_like_ours = re.fullmatch(r"[A-Z][a-z]+([A-Z][A-Za-z]*)+|[A-Z]+[a-z]+\w*|[a-z]+(_[a-z]+)+", span)
    return not looks_like_ours or hasattr(builtins, span)


def spans(page):
    for span in SPAN.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        name = span.partition("(")[0].removesuffix("=")
        # The tests that a page names are held against the tests by test_hostile_table.py.
        if NAME.fullmatch(name) and not name.startswith("test_"):
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_speak_of_what_there_is(page):
    assert sorted({name for name in spans(page) if not is_known(name)}) == []


@pytest.mark.parametrize(
    "name", ["DataEndpoints", "DataAPI.gett", "agentrun_proto.nothing", "agentrun_transport", "post_files"]
)
def test_the_net_holds(name):
    assert not is_known(name)
