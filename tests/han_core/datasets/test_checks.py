from dataclasses import replace

import pytest

from han_core.datasets.checks import check_inspections, check_listing
from han_core.datasets.listing import Listing, Problem, Split, Video
from han_core.datasets.probing import Inspection

VIDEOS = tuple(Video(f"{c}/{c}{g}.avi", c, f"g{g}") for c in "ab" for g in (1, 2, 3))


@pytest.fixture
def sound():
    return Listing(
        videos=VIDEOS,
        classes=("a", "b"),
        splits={1: Split(("a/a1.avi", "a/a2.avi", "b/b1.avi", "b/b2.avi"), ("a/a3.avi", "b/b3.avi"))},
        available=(1, 2),
        on_disk=frozenset(v.path for v in VIDEOS),
    )


def only(problems):
    assert len(problems) == 1
    return problems[0].severity, problems[0].title, problems[0].items


def test_a_sound_listing_has_no_problem(sound):
    assert check_listing(sound, (1,)) == []


def test_problems_of_reading_are_kept(sound):
    known = Problem("warning", "seen while reading")
    assert check_listing(replace(sound, problems=(known,)), (1,)) == [known]


def test_missing_videos(sound):
    listing = replace(sound, on_disk=sound.on_disk - {"a/a1.avi"})
    assert only(check_listing(listing, (1,))) == (
        "error", "videos that the split files name and that are missing", ("a/a1.avi",),
    )  # fmt: skip


def test_extra_videos_are_a_warning(sound):
    severity, title, items = only(check_listing(replace(sound, on_disk=sound.on_disk | {"a/new.avi"}), (1,)))
    assert (severity, items) == ("warning", ("a/new.avi",))
    assert "no requested split mentions" in title


def test_clips_in_train_and_test(sound, titles):
    split = sound.splits[1]
    listing = replace(sound, splits={1: Split((*split.train, "a/a3.avi"), split.test)})
    problems = check_listing(listing, (1,))
    assert titles(problems, "clips that split 1 has in both") == [("error", ("a/a3.avi",))]


@pytest.mark.parametrize("severity", ["error", "warning", "note"])
def test_groups_that_straddle_are_as_bad_as_the_protocol_says(sound, severity):
    split = Split(("a/a1.avi", "b/b2.avi"), ("a/a3.avi", "b/b1.avi"))
    listing = replace(sound, splits={1: split}, straddling=severity)
    found = only(check_listing(listing, (1,)))
    assert found == (severity, "groups of split 1 with clips in both train and test", ("g1",))


def test_duplicate_stems(sound):
    twin = Video("b/a1.mp4", "b", "g1")
    listing = replace(sound, videos=(*sound.videos, twin), on_disk=sound.on_disk | {twin.path})
    severity, title, items = only(check_listing(listing, (1,)))
    assert (severity, items) == ("error", ("a/a1.avi and b/a1.mp4",))
    assert "stems that occur twice" in title


@pytest.mark.parametrize(("side", "split"), [("train", Split((), ("a/a1.avi",))), ("test", Split(("a/a1.avi",), ()))])
def test_a_split_without_train_or_test_clips(sound, side, split):
    found = only(check_listing(replace(sound, splits={1: split}), (1,)))
    assert found == ("error", f"split 1 has no {side} clip", ())


def test_a_class_that_is_tested_must_be_trained(sound, titles):
    split = Split(("a/a1.avi", "a/a2.avi"), ("a/a3.avi", "b/b3.avi"))
    problems = check_listing(replace(sound, splits={1: split}), (1,))
    assert titles(problems, "tests and has no train clip") == [("error", ("b",))]


def test_a_class_without_test_clips_is_a_warning(sound):
    split = Split(("a/a1.avi", "b/b2.avi"), ("a/a3.avi",))
    assert only(check_listing(replace(sound, splits={1: split}), (1,)))[::2] == ("warning", ("b",))


def test_splits_that_are_not_available(sound):
    assert only(check_listing(sound, (1, 5))) == ("error", "splits that are not available; there are: 1, 2", ("5",))
    assert check_listing(replace(sound, available=None), (1, 5)) == []


def test_no_clip_at_all(sound):
    problems = check_listing(replace(sound, videos=(), splits={}, on_disk=frozenset()), (1,))
    assert only(problems)[:2] == ("error", "no clip: the class folders or the split files are empty")


def test_names_that_no_file_can_hold(sound):
    odd = Video("a/\udce9.avi", "a", "g9")
    listing = replace(sound, videos=(*sound.videos, odd), on_disk=sound.on_disk | {odd.path})
    assert only(check_listing(listing, (1,)))[2] == ("'a/\\udce9.avi'",)


def test_unreadable_videos_are_errors_beyond_the_allowed_number():
    found = {"b.avi": Inspection("y", "is empty"), "a.avi": Inspection("x"), "c.avi": Inspection("z", "is cut off")}
    severity, title, items = only(check_inspections(found, 1))
    assert (severity, items) == ("error", ("b.avi: is empty", "c.avi: is cut off"))
    assert "allow 2 in dataset.allowed_failures" in title
    assert only(check_inspections(found, 2))[0] == "warning"
    assert check_inspections({"a.avi": Inspection("x")}, 0) == []
