"""Who may import whom: the layers of the core, and the walls between the wheels (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CORE = ROOT / "core" / "src"


def described(head: str, column: int = 1) -> list[set[str]]:
    """The modules of each row of a table of docs/architecture.md."""
    rule = "|---" * (head.splitlines()[-1].count("|") - 1) + "|\n"
    _, _, table = (ROOT / "docs/architecture.md").read_text().partition(head + rule)
    return [set(re.findall(r"`(\w+)/?`", row.split("|")[column])) for row in table.partition("\n\n")[0].splitlines()]


# Each layer may import from itself and from those above it.  What the page does not name is a mistake, so that a new
# module gets its place when it is written.
LEVEL = {
    name: level for level, names in enumerate(described("| layer | modules | what |\n", column=2)) for name in names
}

WHEELS = {
    "composefs_ext": (ROOT / "extensions" / "sdk" / "src", set[str]()),
    "composefs_oci": (
        ROOT / "extensions" / "oci" / "src",
        {"composefs_ext", "isal", "zstandard"},
    ),
    "composefs_ostree": (
        ROOT / "extensions" / "ostree" / "src",
        {"composefs_ext", "pycurl", "isal", "cryptography", "pysequoia"},
    ),
}


@cache
def modules(source: Path) -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        found.append((name, ast.parse(path.read_bytes(), str(path))))
    return found


@cache
def imports(tree: ast.Module) -> list[tuple[str, int]]:
    """All modules that are imported anywhere in a file, lazily or for type checkers too, with the line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide what is imported"
            assert node.module is not None
            found.append((node.module, node.lineno))
            # `from composefs import errors` imports the module composefs.errors.
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def layer(module: str) -> str | None:
    """The name of the layer's entry that a module of the core belongs to; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_module_of_the_core_has_a_layer() -> None:
    assert {name for module, _ in modules(CORE) if (name := layer(module))} == set(LEVEL)


def test_the_core_imports_only_from_its_own_and_lower_layers() -> None:
    wrong = [
        f"{module}:{line} imports {imported}"
        for module, tree in modules(CORE)
        if (above := layer(module))
        for imported, line in imports(tree)
        if imported.startswith("composefs.") and LEVEL.get(layer(imported) or "", -1) > LEVEL[above]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source", [CORE, *(source for source, _ in WHEELS.values())], ids=lambda path: path.parent.name
)
def test_no_modules_import_each_other(source: Path) -> None:
    found = {module: sorted(imports(tree)) for module, tree in modules(source)}
    graph = {
        module: {
            name
            for name, line in lines
            # Of `from package import module`, the module: the package's face may name its modules, not they the face.
            if name in found and not any(f"{name}." in other and at == line for other, at in lines if other in found)
        }
        for module, lines in found.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def checked_only(tree: ast.Module) -> set[ast.AST]:
    """The imports for type checkers, of what need not be there at run time."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for guard in guards for statement in guard.body for node in ast.walk(statement)}


@pytest.mark.parametrize(
    "source", [CORE, *(source for source, _ in WHEELS.values())], ids=lambda path: path.parent.name
)
def test_what_modules_take_from_each_other_they_offer(source: Path) -> None:
    found = dict(modules(source))
    offered = {
        name: ast.literal_eval(node.value)
        for name, tree in found.items()
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    }
    wrong = [
        f"{module}:{node.lineno} takes {alias.name} from {node.module}"
        for module, tree in found.items()
        for node in {*ast.walk(tree)} - checked_only(tree)
        if isinstance(node, ast.ImportFrom) and node.module in found
        for alias in node.names
        if f"{node.module}.{alias.name}" not in found
        and alias.name not in (*offered.get(node.module, ()), "__version__")
    ]
    assert wrong == []


@pytest.mark.parametrize("wheel", WHEELS)
def test_a_wheel_imports_only_what_it_declares(wheel: str) -> None:
    source, allowed = WHEELS[wheel]
    known = allowed | {wheel} | sys.stdlib_module_names
    wrong = [
        f"{module}:{line} imports {imported}"
        for module, tree in modules(source)
        for imported, line in imports(tree)
        if imported.partition(".")[0] not in known
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "package", "head"),
    [
        (CORE, "composefs.ext", "The host of extensions, `ext`, is the largest of them:\n\n| modules | what |\n"),
        (
            WHEELS["composefs_ext"][0],
            "composefs_ext",
            "The SDK, `composefs_ext`, has what both need:\n\n| modules | what |\n",
        ),
    ],
)
def test_the_page_names_every_module(source: Path, package: str, head: str) -> None:
    names = [name.removeprefix(f"{package}.") for name, _ in modules(source) if name.startswith(f"{package}.")]
    assert set().union(*described(head)) == {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("wheel", ["composefs_oci", "composefs_ostree"])
def test_an_extension_imports_downwards_in_the_table_of_its_modules(wheel: str) -> None:
    level = {name: at for at, row in enumerate(described(f"| `{wheel}` | what |\n")) for name in row}
    level["main"] = -1
    found = [(name, tree) for name, tree in modules(WHEELS[wheel][0]) if name != wheel]
    assert {layer(name) for name, _ in found} == set(level)
    wrong = [
        f"{module}:{line} imports {imported}"
        for module, tree in found
        for imported, line in imports(tree)
        if imported.startswith(f"{wheel}.") and level.get(layer(imported) or "", 99) < level[layer(module) or ""]
    ]
    assert wrong == []


def test_no_extension_is_imported_by_the_core() -> None:
    wrong = [
        f"{module}:{line} imports {imported}"
        for module, tree in modules(CORE)
        for imported, line in imports(tree)
        if imported.partition(".")[0].startswith("composefs_")
    ]
    assert wrong == []
