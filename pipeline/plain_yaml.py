"""YAML of a person, read so that no file can do harm: bounded in size, without tags that build objects.

Numbers such as ``1e-6`` are read as numbers, as YAML 1.2 and DVC read them. Those of which PyYAML, by YAML 1.1, makes
another value than DVC are refused: DVC fills in commands and paths with what it reads itself. Lists come as tuples.
"""

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

MAX_BYTES = 2**18
"""A params file has about 5,000 bytes."""
MAX_VALUES = 20_000
"""Keys and values, those that an alias repeats counted each time: aliases of aliases grow exponentially."""
_SHOWN = 500
"""Characters of the parser's own words that are passed on."""


_LEADING_ZERO = re.compile(r"[-+]?0o?_*[0-9][0-9_]*")
"""``010`` is 8 in YAML 1.1 and 10 in YAML 1.2, ``08`` text and 8, ``0o10`` text and 8."""
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
"""``1:30`` is 90 in YAML 1.1 and text in YAML 1.2."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class PlainYamlError(ValueError):
    """The file is not plain YAML; the message says what is wrong with it, without its name."""


class _Loader(yaml.SafeLoader):
    """Plain values only."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:seq", _tuple)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:[0-9]+\.?|\.[0-9])[0-9]*[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_plain_yaml(path: Path) -> object:
    """The content of a YAML file, with tuples for lists.

    Raises:
        OSError: it cannot be read.
        PlainYamlError: it is too large, not UTF-8, or not plain YAML.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlainYamlError(f"is larger than {MAX_BYTES // 1024} KiB, which no such file needs")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"is not UTF-8 text (byte {error.start})") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        _refuse_odd_scalars(node, set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise PlainYamlError(f"is not valid YAML: {_shorten(str(error))}") from None
    except PlainYamlError:
        raise
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # Dates, numbers and explicit tags that PyYAML takes for values and stumbles over, e.g. 2020-13-01, !!bool x.
        raise PlainYamlError(f"is not valid YAML: a value cannot be read ({_shorten(str(error))})") from None
    except RecursionError:
        raise PlainYamlError("is nested too deeply") from None


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Nodes below and with this one, as if every alias were written out."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise PlainYamlError("holds an alias of itself")
        return size
    known[id(node)] = None
    size = 1 + sum(_count(child, known) for child in _children(node))
    if size > MAX_VALUES:
        raise PlainYamlError(f"holds more than {MAX_VALUES} values, aliases (*name) written out")
    known[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _refuse_odd_scalars(node: yaml.Node, seen: set[int]) -> None:
    """Halves of characters, which nothing can print or store; numbers that DVC reads otherwise; keys given twice, of
    which PyYAML would take the last without a word."""
    if isinstance(node, yaml.ScalarNode):
        where = f"line {node.start_mark.line + 1}"
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise PlainYamlError(f"{where}: an escape of \\ud800 to \\udfff is no character")
        if (node.tag in _NUMBERS or node.style is None) and _LEADING_ZERO.fullmatch(node.value):
            raise PlainYamlError(
                f"{where}: {_shorten(node.value, 80)} is one number to some readers of YAML and another to others; "
                "write it without the zero in front, or, where it is a name, in quotes"
            )
        if node.tag in _NUMBERS and _SEXAGESIMAL.fullmatch(node.value):
            raise PlainYamlError(
                f"{where}: {_shorten(node.value, 80)} is a number of base 60 to some readers of YAML and text to "
                "others; write the number out, or, where it is text, in quotes"
            )
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[Hashable] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    raise PlainYamlError(f"line {key.start_mark.line + 1}: {_shorten(key.value, 80)!r} is given twice")
                keys.add((key.tag, key.value))
    for child in _children(node):
        _refuse_odd_scalars(child, seen)


def _shorten(text: str, limit: int = _SHOWN) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
