from pathlib import Path

import pytest


@pytest.fixture
def files(tmp_path):
    """Make (empty or given) files below a folder of the test: ``files("root", "a/b.avi", "c.txt")``."""

    def make(folder: str, *names: str, text: str = "") -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return root

    return make


@pytest.fixture
def titles():
    """Severity and title of problems that match a word, for short assertions."""

    def find(problems, word):
        return [(p.severity, p.items) for p in problems if word in p.title]

    return find
