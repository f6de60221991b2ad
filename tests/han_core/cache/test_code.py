"""The digest of code: what it does counts, how it is laid out and explained does not."""

import pytest

from han_core.cache.code import code_digest

SOURCE = '''"""What this is for."""

from math import floor as down


class Box:
    """A box."""

    width: int = 3
    """Pixels."""

    @property
    def area(self) -> float:
        # twice, because of the lid
        return 2 * self.width**2 if self.width > 0 else -1.5


async def look(boxes, *rest, best=None, **more):
    """Look at them."""
    with open(f"{best!r:>10}-{more['x']}.txt") as file, file:
        match boxes:
            case [Box(width=w), *_] if (n := down(w)):
                return [b async for b in rest if b is not None], {**more}, lambda q: ~q, n, b"\\x00", 1j, "ü"
            case _:
                raise ValueError("none") from None
'''


@pytest.fixture
def digest(tmp_path):
    def of(source: str, name: str = "room/module.py", names: tuple[str, ...] = ("room",)) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return code_digest(tmp_path, names)

    return of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# twice, because of the lid", "# two times"),
        ('"""A box."""', '"""A crate: another docstring."""'),
        ('    """A box."""\n', ""),
        ('    """Pixels."""\n', ""),
        ("return 2 * self.width**2 if", "return (2 *\n            self.width ** 2) if"),
        ("f\"{best!r:>10}-{more['x']}.txt\"", "f'{best!r:>10}-{more[\"x\"]}.txt'"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(digest, before, after):
    assert before in SOURCE
    assert digest(SOURCE) == digest(SOURCE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2 * self", "3 * self"),
        ("> 0", ">= 0"),
        ("width: int = 3", "width: int = 4"),
        ("width: int = 3", "width: float = 3"),
        ("floor", "ceil"),
        ("!r", "!s"),
        ("b is not None", "b is None"),
        ("@property\n    ", ""),
        ('"ü"', '"u"'),
        ('b"\\x00"', '"\\x00"'),
        ("-1.5", "1.5"),
        ("*rest", "rest"),
        ("best=None", "best=0"),
        ("async for", "for"),
    ],
)
def test_what_it_does_counts(digest, before, after):
    assert before in SOURCE
    assert digest(SOURCE) != digest(SOURCE.replace(before, after))


def test_where_it_stands_and_what_stands_beside_it_count(digest, tmp_path):
    alone = digest(SOURCE)
    assert alone == code_digest(tmp_path, ["room/module.py"]) != digest(SOURCE, "room/other.py")
    (tmp_path / "room" / "other.py").unlink()
    assert digest("", "elsewhere.py") == alone, "only what is named"
    assert code_digest(tmp_path, ["room", "elsewhere.py"]) != alone
    (tmp_path / "room" / "notes.txt").write_text("not code")
    assert code_digest(tmp_path, ["room"]) == alone


def test_it_is_the_same_with_every_version_of_python(digest):
    """The digest is part of every file's name in every cache out there."""
    assert digest(SOURCE) == "f3dfdc6962ba5514"


def test_what_is_not_there_is_an_error(digest, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such module or package"):
        code_digest(tmp_path, ["nothing"])
    with pytest.raises(SyntaxError):
        digest("def")
