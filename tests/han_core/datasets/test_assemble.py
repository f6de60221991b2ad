import hashlib
from dataclasses import replace

import pytest

from han_core.datasets.assemble import assemble_table
from han_core.datasets.listing import Listing, Split, Video

VIDEOS = tuple(Video(f"{c}/{c}{g}.avi", c, f"g{g}") for c in "ba" for g in range(6))


@pytest.fixture
def listing():
    test = tuple(v.path for v in VIDEOS if v.group == "g0")
    train = tuple(v.path for v in VIDEOS if v.group in ("g1", "g2", "g3", "g4"))
    return Listing(VIDEOS, ("b", "a"), {1: Split(train, test), 2: Split(test, train)}, (1, 2), frozenset())


def hash_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def table_of(listing, share=0.0, seed=1, splits=(1, 2)):
    hashes = {v.path: hash_of(v.name) for v in VIDEOS}
    return assemble_table(listing, splits, hashes=hashes, validation_share=share, seed=seed)


def test_roles_labels_and_hashes(listing):
    table = table_of(listing, splits=(2, 1))
    assert table.splits == (1, 2)
    assert table.classes == ("b", "a")
    clip = next(clip for clip in table.clips if clip.name == "a0")
    assert (clip.label, clip.group, clip.path, clip.sha256) == (1, "g0", "a/a0.avi", hash_of("a0"))
    assert clip.roles == {1: "test", 2: "train"}
    assert next(clip for clip in table.clips if clip.name == "b5").roles == {1: "", 2: ""}


def test_validation_is_whole_training_groups(listing):
    table = table_of(listing, share=0.5)
    held = {clip.group for clip in table.select(1, "validation")}
    kept = {clip.group for clip in table.select(1, "train")}
    assert len(held) == 2
    assert held | kept == {"g1", "g2", "g3", "g4"}
    assert not held & kept
    assert {clip.group for clip in table.select(1, "test")} == {"g0"}


def test_validation_depends_on_seed_and_split_only(listing):
    assert table_of(listing, share=0.5) == table_of(listing, share=0.5)
    held = {frozenset(c.group for c in table_of(listing, 0.25, seed).select(1, "validation")) for seed in range(8)}
    assert len(held) > 1


def test_every_split_draws_its_own_validation_groups(listing):
    split = listing.splits[1]
    listing = replace(listing, splits=dict.fromkeys(range(1, 9), split))
    table = table_of(listing, 0.25, splits=range(1, 9))
    assert len({frozenset(c.group for c in table.select(n, "validation")) for n in range(1, 9)}) > 1


def test_without_a_share_nothing_is_held_out(listing):
    assert table_of(listing).select(1, "validation") == ()
