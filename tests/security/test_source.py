"""What the package never does, read from its own source: no test of behaviour could show that it is nowhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = {str(file.relative_to(ROOT)): file for name in ("operon", "actors") for file in (ROOT / name).rglob("*.py")}

# What turns data into code, or objects of any class.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "jsonpickle", "code"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
FORBIDDEN_ATTRIBUTES = {"os.system", "os.popen", "pickle.loads", "builtins.eval", "builtins.exec"}

# The only modules that are imported by name: the one of the command line, and two libraries that may be missing.
IMPORT_BY_NAME = {"operon/cli/target.py", "operon/cli/reload.py", "operon/runtime/loop.py"}

# SQL that is made of pieces, and of what. Names of test databases are checked, all else has no word of a user's in it.
MADE_OF_PIECES = {
    "operon/database/checkpoints.py": "a statement of ours with a name of ours",
    "operon/database/migrate.py": "the number of a migration",
    "operon/database/notifier.py": "a channel and a bell of our own, numbers and UUIDs",
    "operon/database/stock.py": "checked names of test databases",
    "operon/database/testbed.py": "checked names of test databases",
    "operon/database/writer.py": "settings of ours",
    "operon/runtime/transactions.py": "the words of an isolation level",
}
DATABASE_CALLS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "prepare", "cursor"}


# Parsed before any test has run: Python 3.11 does not parse any more once something has met its recursion limit.
TREES = {name: ast.parse(file.read_text()) for name, file in SOURCES.items()}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            yield name, node


def dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted(value)}.{attribute}"
        case _:
            return ""


def test_nothing_turns_data_into_code_or_objects_of_any_class() -> None:
    found: set[tuple[str, str]] = set()
    for name, node in nodes():
        match node:
            case ast.Import(names=names):
                found |= {(name, each.name) for each in names if each.name.split(".")[0] in FORBIDDEN_MODULES}
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN_MODULES:
                found.add((name, module))
            case ast.Call(func=func) if dotted(func) in FORBIDDEN_CALLS | FORBIDDEN_ATTRIBUTES:
                found.add((name, dotted(func)))
            case _:
                pass

    assert found == set()


def test_no_program_is_run_through_a_shell() -> None:
    shells = [
        (name, node.lineno)
        for name, node in nodes()
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]

    assert shells == []


def test_a_module_is_imported_by_name_only_where_a_person_named_it() -> None:
    found = {
        name
        for name, node in nodes()
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "import_module"
    }

    assert found <= IMPORT_BY_NAME


def test_sql_is_constant_but_for_what_is_listed_here() -> None:
    found = {
        name
        for name, node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in DATABASE_CALLS
        and node.args
        and isinstance(node.args[0], ast.JoinedStr | ast.BinOp)
    }

    assert found <= set(MADE_OF_PIECES)
