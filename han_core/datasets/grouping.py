"""Which groups are train, test or validation, where no official list says so.

Groups are ranked by a hash of (seed, purpose, name): the same on every machine and Python, and a group that is added
or removed leaves the order of the others as it was.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


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


def deal_evenly(classes_of_clips: Mapping[str, Sequence[str]], folds: int, *key: int | str) -> dict[str, int]:
    """Deal groups of unequal size into folds 1 to ``folds`` that hold about as many clips, of each class too.

    The largest group comes first, equal ones in the order of :func:`rank`; each goes to the fold that has the fewest
    clips of its classes, then the fewest clips, then the lowest number. With as many groups, no fold is empty.

    Args:
        classes_of_clips: group -> the class of each of its clips.
        folds: at least 1.
        key: the seed and the purpose of the draw.
    """
    dealt: dict[str, int] = {}
    held = {fold: Counter[str]() for fold in range(1, folds + 1)}
    ranked = rank(classes_of_clips, *key)
    for name in sorted(ranked, key=lambda name: -len(classes_of_clips[name])):  # stable
        classes = Counter(classes_of_clips[name])
        fold = min(held, key=lambda fold: (sum(held[fold][c] for c in classes), held[fold].total(), fold))
        held[fold] += classes
        dealt[name] = fold
    return dealt


def _strata(classes_of: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Groups by class if each has one class only, else all of them together."""
    if any(len(classes) > 1 for classes in classes_of.values()):
        return {"": list(classes_of)}
    strata: dict[str, list[str]] = {}
    for name, (class_name,) in classes_of.items():
        strata.setdefault(class_name, []).append(name)
    return strata
