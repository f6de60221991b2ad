"""How many descriptors each clip gives and which: in exact proportion, whatever the order of the clips."""

import numpy as np
import pytest

from han_core.baselines.fisher.sampling import collect, drawn, shares


def test_shares_are_in_proportion_and_add_up():
    random = np.random.default_rng(0)
    counts = {f"clip{i}": int(n) for i, n in enumerate(random.integers(0, 5000, 200))}
    total = sum(counts.values())
    for samples in (1, 7, 1000, 99_999, total - 1):
        found = shares(counts, samples)
        assert sum(found.values()) == samples
        for name, share in found.items():
            assert abs(share - counts[name] * samples / total) < 1
            assert 0 <= share <= counts[name]


@pytest.mark.parametrize("samples", [60, 61, 10**9])
def test_where_there_are_no_more_all_are_taken(samples):
    assert shares({"b": 50, "a": 10, "c": 0}, samples) == {"a": 10, "b": 50, "c": 0}


def test_equal_remainders_go_to_the_first_name_whatever_the_order():
    counts = dict.fromkeys("dbca", 10)
    assert shares(counts, 6) == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert list(shares(counts, 6)) == list("abcd")


def test_what_proportion_leaves_over_goes_to_the_largest_remainder():
    assert shares({"a": 10, "b": 14, "c": 16}, 4) == {"a": 1, "b": 1, "c": 2}


def test_nothing_of_nothing():
    assert shares({}, 10) == {}
    assert shares({"a": 0}, 10) == {"a": 0}


def test_what_is_drawn_depends_on_name_and_seed_alone():
    found = drawn("v_a", 1000, 300, 1)
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < 1000
    assert len(found) == 300
    np.testing.assert_array_equal(found, drawn("v_a", 1000, 300, 1))
    assert not np.array_equal(found, drawn("v_b", 1000, 300, 1))
    assert not np.array_equal(found, drawn("v_a", 1000, 300, 2))
    np.testing.assert_array_equal(drawn("v_a", 5, 5, 1), range(5))
    assert not len(drawn("v_a", 5, 0, 1))
    assert not len(drawn("v_a", 0, 0, 1))


def test_all_parts_of_a_clip_are_drawn_from():
    counts = np.zeros(100)
    for number in range(300):
        counts[drawn(f"clip{number}", 100, 10, 0)] += 1
    assert counts.min() > 10
    assert counts.max() < 60


def test_more_than_there_are_is_told():
    with pytest.raises(ValueError, match="v_a: 6 of 5"):
        drawn("v_a", 5, 6, 1)


def test_the_sample_does_not_depend_on_the_order_of_the_clips():
    clips = {f"clip{i}": np.arange(100 * i, 100 * i + 7 * i) for i in range(5)}
    counts = {name: len(values) for name, values in clips.items()}
    asked = []

    def read(name, which):
        asked.append(name)
        return {"x": clips[name][which][:, None], "y": -clips[name][which][:, None]}

    found = collect(counts, 30, read, seed=1)
    again = collect(dict(reversed(counts.items())), 30, read, seed=1)
    np.testing.assert_array_equal(found["x"], again["x"])
    np.testing.assert_array_equal(found["y"], -found["x"])
    assert len(set(found["x"].ravel())) == 30
    assert set(found["x"].ravel()) <= set(np.concatenate(list(clips.values())))
    assert "clip0" not in asked
    assert collect({"clip0": 0}, 30, read, seed=1) == {}
