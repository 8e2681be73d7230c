"""docs/security.md tells which attacks are tried, and how many; each of them looks at something."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ATTACKS = ROOT / "tests" / "integration" / "attacks"
MODULES = sorted(ATTACKS.glob("test_*.py"))
PAGE = (ROOT / "docs" / "security.md").read_text()
CASES_MIN = 75
# Helpers of these names assert for their callers, both the refusal and what must not have changed.
LOOKS = {"refused", "refuses", "obeys", "unchanged"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def cases_in(tree: ast.AST) -> list[Function]:
    return [one for one in functions_in(tree) if one.name.startswith("test_")]


def called_in(function: Function) -> set[str]:
    """Return the last names of what is called: `desk.refuses(...)` is `refuses`."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {ast.unparse(call).rpartition(".")[2] for call in calls}


def asserts(function: Function) -> bool:
    raises = any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises"
        for node in ast.walk(function)
    )
    return raises or any(isinstance(node, ast.Assert) for node in ast.walk(function))


def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_bytes())


def test_the_page_names_every_module_with_as_many_cases_as_it_has():
    rows = re.findall(r"^\| .+ \| `(test_\w+\.py)` \| (\d+) \|$", PAGE, re.MULTILINE)
    held = {module.name: len(cases_in(parsed(module))) for module in MODULES}
    assert {name: int(cases) for name, cases in rows} == held
    assert len(rows) == len(held)


def test_the_page_says_how_many_cases_there_are_in_all_and_they_are_enough():
    total = sum(len(cases_in(parsed(module))) for module in MODULES)
    assert f"**{total} named cases in {len(MODULES)} modules**" in PAGE
    assert total >= CASES_MIN


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_of_attacks_says_in_one_sentence_what_is_tried(module):
    said = ast.get_docstring(parsed(module)) or ""
    assert re.fullmatch(r"[A-Z][^.!?]+\.", " ".join(said.split())), said


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_attack_looks_at_what_came_of_it(module):
    blind = [
        case.name
        for case in cases_in(parsed(module))
        if not asserts(case) and not called_in(case) & LOOKS
    ]
    assert blind == []


def test_the_helpers_that_look_for_others_do_assert():
    helpers = [
        one
        for module in ATTACKS.glob("*.py")
        for one in functions_in(parsed(module))
        if one.name in LOOKS
    ]
    assert {one.name for one in helpers} == LOOKS
    assert [one.name for one in helpers if not asserts(one)] == []


def test_an_attack_that_looks_at_nothing_is_noticed():
    blind, seeing, helped = cases_in(
        ast.parse(
            "def test_a(): desk.submit()\n"
            "def test_b():\n  with pytest.raises(ValueError): desk.submit()\n"
            "async def test_c(): await desk.refuses(ValueError)\n"
        )
    )
    assert [asserts(one) for one in (blind, seeing, helped)] == [False, True, False]
    assert [bool(called_in(one) & LOOKS) for one in (blind, seeing, helped)] == [False, False, True]
