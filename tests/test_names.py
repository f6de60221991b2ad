"""Modules and files that are named by a string somewhere exist: in docs, docstrings, monkeypatches, entry points."""

import importlib.util
import re
import subprocess

NAMED = re.compile(r"(?<![\w./-])((?:han_core|pipeline)(?:\.\w+)+)")
FILES = re.compile(
    r"(?<![\w.-])((?:han_core|pipeline|tests|benchmarks|docs|presets)/[\w/.-]+\.(?:py|md|yaml|json|png|jpg))\b"
)


def texts(repository):
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name.endswith((".py", ".md", ".yaml", ".toml", ".gitignore")) and (repository / name).is_file():
            yield name, (repository / name).read_text(encoding="utf-8")


def resolves(dotted: str) -> bool:
    """A module, or an attribute (of an attribute) of one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        if found is not None:
            rest = parts[end:]
            if not rest:
                return True
            target = importlib.import_module(".".join(parts[:end]))
            return all((target := getattr(target, part, None)) is not None for part in rest)
    return False


def test_every_module_that_is_named_exists(repository):
    named = {(name, match) for name, text in texts(repository) for match in NAMED.findall(text)}
    assert len(named) > 500
    modules = {match for _, match in named}
    unknown = {match for match in modules if not resolves(match)}
    assert sorted((name, match) for name, match in named if match in unknown) == []


def test_every_file_that_is_named_exists(repository):
    named = {(name, match) for name, text in texts(repository) for match in FILES.findall(text)}
    assert len(named) > 50
    assert sorted((name, match) for name, match in named if not (repository / match).exists()) == []
