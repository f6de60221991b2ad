from dataclasses import replace

import pytest

from han_core.datasets.checks import check_inspections, check_lengths, check_listing, flow_cost
from han_core.datasets.listing import Listing, Problem, Split, Video
from han_core.datasets.probing import Inspection
from han_core.video.damage import Damage
from han_core.video.decode import VideoInfo

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
    twin = Video("a/a1.mp4", "a", "g1")
    listing = replace(sound, videos=(*sound.videos, twin), on_disk=sound.on_disk | {twin.path})
    severity, title, items = only(check_listing(listing, (1,)))
    assert (severity, items) == ("error", ("a/a1.avi and a/a1.mp4",))
    assert "stems that occur twice in a class" in title


def test_two_classes_may_have_clips_of_one_stem(sound):
    videos = tuple(replace(v, path=v.path.replace("b3", "a3")) for v in sound.videos)
    splits = {n: Split(s.train, tuple(p.replace("b3", "a3") for p in s.test)) for n, s in sound.splits.items()}
    on_disk = frozenset(path.replace("b3", "a3") for path in sound.on_disk)
    assert check_listing(replace(sound, videos=videos, splits=splits, on_disk=on_disk), (1,)) == []


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


def test_unusable_videos_are_errors_beyond_the_allowed_number(sound):
    found = {"b.avi": Inspection("y", "is empty"), "a.avi": Inspection("x"), "c.avi": Inspection("z", "is cut off")}
    severity, title, items = only(check_inspections(sound, found, 1))
    assert (severity, items) == ("error", ("b.avi: is empty", "c.avi: is cut off"))
    assert "allow 2 in dataset.allowed_failures" in title
    assert only(check_inspections(sound, found, 2))[0] == "warning"
    assert check_inspections(sound, {"a.avi": Inspection("x")}, 0) == []


def test_the_same_bytes_in_two_classes_or_on_both_sides_are_errors(sound, titles):
    hashes = {"a/a1.avi": "x", "a/a2.avi": "y", "a/a3.avi": "y", "b/b2.avi": "x", "b/b3.avi": "z"}
    problems = check_inspections(sound, {path: Inspection(digest) for path, digest in hashes.items()}, 0)
    assert titles(problems, "two classes") == [("error", ("a/a1.avi and b/b2.avi",))]
    assert titles(problems, "two sides") == [("error", ("a/a2.avi and a/a3.avi (split 1)",))]


def test_the_same_bytes_for_validation_and_test_are_an_error(sound, titles):
    split = sound.splits[1]
    held_out = split.train[:1]
    listing = replace(sound, splits={1: replace(split, train=split.train[1:], validation=held_out)})
    same_class = next(path for path in split.test if path.startswith(held_out[0][:2]))
    found = {path: Inspection("x") for path in (held_out[0], same_class)}
    problems = check_inspections(listing, found, 0)
    assert [severity for severity, _ in titles(problems, "two sides")] == ["error"]


def test_the_same_bytes_within_a_class_are_a_warning(sound, titles):
    hashes = {"a/a1.avi": "x", "a/a2.avi": "x", "a/a3.avi": "y"}
    problems = check_inspections(sound, {path: Inspection(digest) for path, digest in hashes.items()}, 0)
    assert titles(problems, "same bytes") == [("warning", ("a/a1.avi and a/a2.avi",))]


def test_damage_and_notes_are_told(sound, titles):
    info = VideoInfo(64, 48, 25.0, 60, "h264", False, ("interlaced",))
    found = {"a/a1.avi": Inspection("x", "", Damage(59, lost=1), info)}
    problems = check_inspections(sound, found, 0)
    expected = [("warning", ("a/a1.avi: 1 of 60 pictures are damaged (1 not decodable)",))]
    assert titles(problems, "damaged pictures") == expected
    assert titles(problems, "not shown equally long") == [("note", ("a/a1.avi",))]
    assert titles(problems, "may not be what they seem") == [("note", ("a/a1.avi: interlaced",))]


def test_flow_that_takes_hours_gets_a_hint_with_the_hours():
    found = {f"{n}": Inspection("x", info=VideoInfo(1920, 1080, 25.0, 500, "h264")) for n in range(100)}
    (hint,) = flow_cost(found, None, 2)
    # 100 * 500 * 1920 * 1080 pixels at 20 pairs of 340x256 in a second, on two cores
    assert "about 8 h on 2 cores; with decode.short_side: 256 about 0.5 h" in hint.title
    assert flow_cost(found, 256, 2) == []
    assert flow_cost(dict(list(found.items())[:5]), None, 2) == []


@pytest.mark.parametrize(
    ("path", "class_name", "fault"),
    [
        ("a/x\\y.avi", "a", "the name is not the name of one file or folder"),
        ("a/x\0y.avi", "a", "the name holds a control character, or one that no text has"),
        ("a/x\x85y.avi", "a", "the name holds a control character, or one that no text has"),
        ("a/..avi", "a", "the name is not the name of one file or folder"),
        ("../x.avi", "..", "the class name is not the name of one file or folder"),
        ("./x.avi", ".", "the class name is not the name of one file or folder"),
        ("C:/x.avi", "a", "the path is not a path inside the dataset's folder"),
        (f"a/{'é' * 101}.avi", "a", "the name is longer than 200 bytes"),
        (f"{'a' * 201}/x.avi", "a" * 201, "the class name is longer than 200 bytes"),
    ],
)
def test_names_that_lead_out_of_the_project(sound, titles, path, class_name, fault):
    odd = Video(path, class_name, "g9")
    listing = replace(sound, videos=(*sound.videos, odd), on_disk=sound.on_disk | {path})
    assert titles(check_listing(listing, (1,)), "that no clip or class can have") == [("error", (f"{path}: {fault}",))]


def test_names_that_are_only_unusual(sound, titles):
    names = ("a b (1) #;&![x].y", "é" * 100, "..x", "$(touch x)", "\u3000")
    odd = tuple(Video(f"a/{name}.avi", "a", "g9") for name in names)
    listing = replace(sound, videos=(*sound.videos, *odd), on_disk=sound.on_disk | {video.path for video in odd})
    assert titles(check_listing(listing, (1,)), "that no clip or class can have") == []


def test_clips_that_are_shorter_than_what_is_taken_of_them_are_warned_of():
    found = {name: Inspection("x", frames=count) for name, count in (("a", 0), ("b", 10), ("c", 11), ("d", 25))}
    short, shallow = check_lengths(found, 25, 10)
    assert (short.severity, short.items) == ("warning", ("b: 10 frames", "c: 11 frames"))
    assert "fewer than the 25 frames that cubes.frames asks for" in short.title
    assert (shallow.severity, shallow.items) == ("warning", ("b: 10 frames",))
    assert "fewer than the 11 frames that stack: 10 needs" in shallow.title
    assert list(check_lengths(found, 10, 9)) == []


def test_one_class_alone_is_an_error(sound):
    one = replace(sound, videos=tuple(replace(v, class_name=sound.videos[0].class_name) for v in sound.videos))
    (problem,) = [p for p in check_listing(one, (1,)) if "only one class" in p.title]
    assert problem.severity == "error"
    assert sound.videos[0].class_name in problem.title


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("contents.csv", "is that of a file that stages write"),
        ("failures.csv", "is that of a file that stages write"),
        ("Failures.CSV", "is that of a file that stages write"),
        (".hidden", "begins with a dot"),
    ],
)
def test_classes_that_would_be_in_the_way_of_what_stages_write(sound, titles, name, fault):
    odd = Video(f"{name}/x.avi", name, "g9")
    listing = replace(sound, videos=(*sound.videos, odd), on_disk=sound.on_disk | {odd.path})
    ((severity, (item,)),) = titles(check_listing(listing, (1,)), "that no clip or class can have")
    assert severity == "error"
    assert item.startswith(f"{odd.path}: the class name {fault}")
