"""A digest of the code that makes a file: what it does, not how it is laid out or explained.

Taken over syntax trees without comments and docstrings, in a spelling of its own: Python's ``ast.dump`` differs from
version to version, and a team's cache should not.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

DIGITS = 16


def code_digest(root: Path, names: Iterable[str]) -> str:
    """Digest of modules, :data:`DIGITS` hexadecimal digits.

    Args:
        root: folder that the names are relative to.
        names: modules and packages, POSIX; a package counts with all modules in it.

    Raises:
        FileNotFoundError: there is none of a name.
        SyntaxError: a module is not Python.
    """
    digest = hashlib.sha256()
    for path in source_files(root, names):
        digest.update(path.relative_to(root).as_posix().encode())
        for part in _spelled(ast.parse(path.read_bytes(), filename=str(path))):
            digest.update(part.encode("ascii", "backslashreplace"))
    return digest.hexdigest()[:DIGITS]


def source_files(root: Path, names: Iterable[str]) -> list[Path]:
    """The modules that the names stand for, in a fixed order.

    Raises:
        FileNotFoundError: there is none of a name.
    """
    found: set[Path] = set()
    for name in names:
        path = root / name
        modules = [path] if path.is_file() else list(path.rglob("*.py"))
        if not modules:
            raise FileNotFoundError(f"{path}: there is no such module or package")
        found.update(modules)
    return sorted(found)


def _spelled(node: ast.AST) -> Iterator[str]:
    """A tree as text. Empty fields are left out: new versions of Python add such ones to old kinds of nodes."""
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment", "type_ignores") or value is None or value == []:
            continue
        yield f" {name}="
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                if not _is_text_alone(item):
                    yield from _spelled(item)
            else:
                yield f"{type(item).__name__}:{item!a},"
    yield ")"


def _is_text_alone(node: ast.AST) -> bool:
    """A docstring, of whatever it stands in or behind."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
