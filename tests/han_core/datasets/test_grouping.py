import random

import pytest

from han_core.datasets.grouping import deal_evenly, deal_groups, draw_groups, rank

SHARED = {f"g{i}": frozenset({"a", "b"}) for i in range(12)}
OWN = {f"{c}{i}": frozenset({c}) for c in "abc" for i in range(4)}


def test_rank_depends_on_key_and_names_only():
    names = [f"g{i}" for i in range(20)]
    assert rank(names, 1, "test", 1) == rank(reversed(names), 1, "test", 1)
    assert rank(names, 1, "test", 1) != rank(names, 2, "test", 1)
    assert rank(names, 1, "test", 1) != rank(names, 1, "test", 2)
    # Written down, so that a change that moves everyone's splits cannot pass unseen.
    assert rank(["g1", "g2", "g3", "g4"], 1, "test", 1) == ["g3", "g2", "g1", "g4"]


def test_a_removed_group_leaves_the_order_of_the_others():
    names = [f"g{i}" for i in range(20)]
    order = rank(names, 1)
    assert rank([n for n in names if n != "g7"], 1) == [n for n in order if n != "g7"]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.34, 4), (0.5, 6), (0.99, 11)])
def test_draw_takes_the_share_and_leaves_at_least_one(share, count):
    assert len(draw_groups(SHARED, share, 1)) == count


def test_draw_from_groups_of_one_class_each_takes_from_every_class():
    chosen = draw_groups(OWN, 0.25, 1, "test", 1)
    assert sorted(name[0] for name in chosen) == ["a", "b", "c"]


def test_a_single_group_is_never_drawn():
    assert draw_groups({"g": frozenset({"a"})}, 0.5, 1) == frozenset()


def test_deal_gives_each_group_one_fold_and_folds_of_equal_size():
    for groups in (SHARED, OWN):
        folds = deal_groups(groups, 4, 1, "fold")
        assert set(folds) == set(groups)
        assert sorted(folds.values()) == sorted([1, 2, 3, 4] * 3)
    by_class = {c: sorted(f for name, f in folds.items() if name[0] == c) for c in "abc"}
    assert by_class == {c: [1, 2, 3, 4] for c in "abc"}


def test_deal_evenly_keeps_groups_whole_and_folds_of_about_equal_size():
    rng = random.Random(7)
    for _ in range(50):
        folds, classes = rng.randint(2, 5), "abc"[: rng.randint(1, 3)]
        groups = {f"g{n}": rng.choices(classes, k=rng.randint(1, 9)) for n in range(rng.randint(folds, 20))}
        dealt = deal_evenly(groups, folds, 1, "inner")
        assert dealt == deal_evenly(dict(reversed(groups.items())), folds, 1, "inner"), (
            "the order of names is no matter"
        )
        assert set(dealt) == set(groups)
        assert set(dealt.values()) == set(range(1, folds + 1)), "no fold is empty"
        if len(classes) == 1:
            sizes = [sum(len(groups[g]) for g in groups if dealt[g] == fold) for fold in range(1, folds + 1)]
            assert max(sizes) - min(sizes) <= max(map(len, groups.values()))


def test_deal_evenly_spreads_groups_of_one_class_each_class_by_class():
    groups = {name: [name[0]] * 2 for name in OWN}
    dealt = deal_evenly(groups, 4, 1, "inner")
    for c in "abc":
        assert sorted(fold for name, fold in dealt.items() if name[0] == c) == [1, 2, 3, 4]


def test_deal_evenly_depends_on_the_key():
    groups = {f"g{n}": ["a"] for n in range(12)}
    assert deal_evenly(groups, 3, 1, "inner", 1) != deal_evenly(groups, 3, 2, "inner", 1)
    # Written down, so that a change that moves everyone's folds cannot pass unseen.
    assert deal_evenly({f"g{n}": ["a"] for n in range(1, 5)}, 2, 1) == {"g1": 2, "g2": 1, "g3": 1, "g4": 2}
