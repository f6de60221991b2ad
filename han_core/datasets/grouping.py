"""Which groups are train, test or validation, where no official list says so.

Groups are ranked by a hash of (seed, purpose, name): the same on every machine and Python, and a group that is added
or removed leaves the order of the others as it was.
"""

import hashlib
from collections.abc import Iterable, Mapping


def rank(names: Iterable[str], *key: int | str) -> list[str]:
    """The names in an order that is random but depends on ``key`` and the names alone."""
    prefix = "\0".join(map(str, key))
    return sorted(names, key=lambda name: hashlib.sha256(f"{prefix}\0{name}".encode(errors="surrogateescape")).digest())


def draw_groups(classes_of: Mapping[str, frozenset[str]], share: float, *key: int | str) -> frozenset[str]:
    """Draw ``share`` of the groups.

    Where every group belongs to one class only, the share is drawn within each class, so that no class is left out.
    A draw from n > 1 groups takes at least one and leaves at least one.

    Args:
        classes_of: group -> the classes of its clips.
        share: share of the groups to draw, 0 to 1; 0 draws none.
        key: the seed and the purpose of the draw.
    """
    if share == 0:
        return frozenset()
    chosen: set[str] = set()
    for names in _strata(classes_of).values():
        count = min(max(round(share * len(names)), 1), len(names) - 1)
        chosen.update(rank(names, *key)[:count])
    return frozenset(chosen)


def deal_groups(classes_of: Mapping[str, frozenset[str]], folds: int, *key: int | str) -> dict[str, int]:
    """Deal the groups into folds 1 to ``folds`` in turn, class by class where every group has one class only."""
    ranked = [name for _, names in sorted(_strata(classes_of).items()) for name in rank(names, *key)]
    return {name: i % folds + 1 for i, name in enumerate(ranked)}


def _strata(classes_of: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Groups by class if each has one class only, else all of them together."""
    if any(len(classes) > 1 for classes in classes_of.values()):
        return {"": list(classes_of)}
    strata: dict[str, list[str]] = {}
    for name, (class_name,) in classes_of.items():
        strata.setdefault(class_name, []).append(name)
    return strata
