import os
import unicodedata

import pytest

from han_core.datasets.checks import check_listing
from han_core.datasets.folder import FolderRules
from han_core.datasets.probing import inspect_video
from han_core.datasets.video_list import clip_names, list_videos

NAMES = [f"{c}{n}.mp4" for c in "ab" for n in range(4)]


@pytest.fixture
def read(files):
    """Problems of a list over the videos a0 to b3, and what was read: ``read("path,class\\n..")``."""
    folder = files("videos", *NAMES)

    def listed(text, splits=(1,), rules=None, base=None):
        (folder / "list.csv").write_text(text, encoding="utf-8")
        listing = list_videos(folder / "list.csv", rules or FolderRules(), splits, seed=1, base=base)
        return check_listing(listing, splits), listing

    listed.folder = folder
    return listed


def table(header, row):
    """A list of all videos: ``row(name, number)`` gives a line."""
    return "\n".join([header, *(row(name, n) for n, name in enumerate(NAMES))])


def test_a_list_of_path_and_class(read):
    problems, listing = read(table("path,class", lambda name, n: f"{name},{name[0]}"))
    assert problems == []
    assert listing.classes == ("a", "b")
    assert [(v.path, v.class_name, v.group, v.name) for v in listing.videos] == [
        (name, name[0], name, name[:2]) for name in NAMES
    ]
    split = listing.splits[1]
    assert sorted((*split.train, *split.test)) == NAMES
    assert len(split.test) == 2
    assert listing.on_disk == set(NAMES)


def test_the_order_of_lines_and_columns_changes_nothing(read):
    _, one = read(table("path,class,group", lambda name, n: f"{name},{name[0]},g{n % 4}"))
    text = table("group;path;class", lambda name, n: f"g{n % 4};./{name};{name[0]}").splitlines()
    problems, other = read("\ufeff" + "\n".join([text[0], *reversed(text[1:])]))
    assert problems == []
    assert set(one.splits[1].test) == set(other.splits[1].test)
    tested = {video.group for video in one.videos if video.path in one.splits[1].test}
    assert {v.path for v in one.videos if v.group in tested} == set(one.splits[1].test), "groups stay whole"


def test_folds_are_dealt_by_group(read):
    rules = FolderRules(split_by="fold", folds=4)
    problems, listing = read(
        table("path,class,group", lambda name, n: f"{name},{name[0]},g{n % 4}"), (1, 2, 3, 4), rules
    )
    assert problems == []
    assert listing.available == (1, 2, 3, 4)
    assert sorted(path for split in listing.splits.values() for path in split.test) == NAMES


def test_splits_of_the_list(read):
    roles = ("train", "Training", "val", "TEST")
    problems, listing = read(table("path,class,split", lambda name, n: f"{name},{name[0]},{roles[n % 4]}"))
    assert problems == []
    split = listing.splits[1]
    assert (split.train, split.validation, split.test) == (
        ("a0.mp4", "a1.mp4", "b0.mp4", "b1.mp4"), ("a2.mp4", "b2.mp4"), ("a3.mp4", "b3.mp4"),
    )  # fmt: skip


def test_several_splits_may_leave_clips_out(read, titles):
    def row(name, n):
        return (
            f"{name},{name[0]},{'test' if n % 4 == 1 else 'train' if n % 4 else ''},{'test' if n % 4 == 2 else 'train'}"
        )

    text = table("path,class,split1,split_2", row)
    problems, listing = read(text, (1, 2))
    assert problems == []
    assert listing.splits[1].test == ("a1.mp4", "b1.mp4")
    assert "a0.mp4" not in listing.splits[1].train
    assert listing.splits[2].train[0] == "a0.mp4"
    problems, listing = read(text, (1,))
    assert titles(problems, "no requested split mentions") == [("warning", ("a0.mp4", "b0.mp4"))]
    assert titles(read(text, (3,))[0], "not available; there are: 1, 2") == [("error", ("3",))]


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_group_on_two_sides_is_an_error_and_its_lines_are_told(read, titles, first, second):
    sides = {"0": first, "1": second, "2": "train", "3": "train"}
    text = table("path,class,group,split", lambda name, n: f"{name},{name[0]},g{n // 2},{sides[name[1]]}")
    found = titles(read(text)[0], "groups of split 1 with clips in both")
    assert ("error", ("g0 (e.g. line 2 and line 3)", "g2 (e.g. line 6 and line 7)")) in found


def test_every_mistake_of_a_list_in_one_go_with_its_line(read, titles):
    lines = [
        "path,class,gruop,split",
        "a0.mp4,a,,train",
        "a1.mp4,a,,tarin",
        ",a,,test",
        "a2.mp4,,,test",
        "./a0.mp4,b,,test",
        "gone.mp4,b,,train",
        "/elsewhere/x.mp4,b,,train",
        "b,0.mp4,b,,train",
        "b0.mp4,a/b,,train",
        "b1.mp4,A,,test",
    ]
    problems, _ = read("\n".join(lines))
    for word, severity, items in (
        ("that are not used", "warning", ("gruop; is it group?",)),
        ("none of train", "error", ("line 3: tarin",)),
        ("without a path", "error", ("line 4",)),
        ("without a class", "error", ("line 5: a2.mp4",)),
        ("named twice", "error", ("line 6: ./a0.mp4, as line 2",)),
        ("that are missing", "error", ("line 7: gone.mp4",)),
        ("set dataset.base to a folder that holds all, / (rel", "error", ("line 8: /elsewhere/x.mp4",)),
        ("cannot be read", "error", ("line 9: 5 values for 4 columns; is one with a comma unquoted?",)),
        (
            "no clip or class can have",
            "error",
            ("line 10: b0.mp4: the class name is not the name of one file or folder",),
        ),
        ("capital letters", "warning", ("A and a",)),
    ):
        assert titles(problems, word) == [(severity, items)], word


@pytest.mark.parametrize(
    ("header", "word", "items"),
    [
        ("file,label", "it names file, label. Missing", ("path", "class")),
        ("", "it names a0.mp4, a. Missing", ("path", "class")),
        ("path,class,Class", "there twice", ("class",)),
        ("path,class,split,split1", "there twice", ("split 1 (split, split1)",)),
    ],
)
def test_a_first_line_that_does_not_do_is_the_one_error(read, titles, header, word, items):
    problems, _ = read(f"{header}\na0.mp4,a\n")
    assert titles(problems, word) == [("error", items)]
    assert sum(problem.severity == "error" for problem in problems) == 1


def test_a_list_that_is_no_text_is_an_error(files, titles):
    folder = files("videos")
    (folder / "list.csv").write_bytes(b"path,class\n\xff\n")
    problems = check_listing(list_videos(folder / "list.csv", FolderRules(), (1,), seed=1), (1,))
    assert len(titles(problems, "line 2: is not UTF-8")) == 1


def test_a_column_of_groups_with_gaps_is_warned_of(read, titles):
    problems, listing = read(table("path,class,group", lambda name, n: f"{name},{name[0]},{'' if n == 1 else f'g{n}'}"))
    assert titles(problems, "without a group") == [("warning", ("line 3: a1.mp4",))]
    assert listing.videos[1].group == "a1.mp4"


def test_splits_are_drawn_only_where_that_is_asked_for(read, titles):
    problems, _ = read(table("path,class", lambda name, n: f"{name},{name[0]}"), rules=FolderRules(split_by="list"))
    assert titles(problems, "has no column split, but dataset.folder.split_by is list") == [("error", ())]


def test_paths_may_start_elsewhere_and_be_absolute(read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    places = ("{}", str(read.folder) + "/{}", "~/videos/{}", "videos/../videos/{}")
    places = [place if place[0] in "/~" else f"videos/{place}".replace("videos/videos", "videos") for place in places]
    text = table("path,class", lambda name, n: f"{places[n % 4].format(name)},{name[0]}")
    problems, listing = read(text, base=tmp_path)
    assert problems == []
    assert [video.path for video in listing.videos] == [f"videos/{name}" for name in NAMES]


def test_a_name_in_another_unicode_form_is_found(read, files):
    composed, decomposed = (unicodedata.normalize(form, "café.mp4") for form in ("NFC", "NFD"))
    files("videos", decomposed)
    text = table("path,class", lambda name, n: f"{name},{name[0]}") + f"\n{composed},a"
    problems, listing = read(text)
    assert problems == []
    assert listing.videos[-1].path == decomposed
    assert listing.videos[-1].name == unicodedata.normalize("NFC", "café")


def test_names_are_unique_and_depend_on_those_they_share_a_stem_with_alone():
    paths = {
        "p1/wave.mp4": "wave", "p2/wave.mp4": "wave", "x/p2/wave.mp4": "wave", "p3/wave.mp4": "bow",
        "q/a.mp4": "wave", "q/a.avi": "wave", "s-t/u.mp4": "wave", "s/t/u.mp4": "wave", "deep/down/one.mp4": "wave",
    }  # fmt: skip
    names = clip_names(paths)
    assert names == clip_names(dict(reversed(paths.items())))
    assert len({(paths[path], name) for path, name in names.items()}) == len(paths)
    assert [names[path] for path in ("p1/wave.mp4", "p2/wave.mp4", "x/p2/wave.mp4", "p3/wave.mp4")] == [
        "p1-wave", "p2-wave", "x-p2-wave", "wave",
    ]  # fmt: skip
    assert names["deep/down/one.mp4"] == "one"
    assert names["s/t/u.mp4"] == "t-u"
    assert names["q/a.mp4"].startswith("q-a-")
    more = clip_names(paths | {"p9/wave.mp4": "wave", "new.mp4": "wave"})
    assert {path: more[path] for path in paths} == names


@pytest.mark.parametrize("text", ["path,class", "path,class\n\n,,\n", "path;class;split\n"])
def test_a_list_of_a_first_line_alone_says_so(read, text):
    (problem,) = read(text)[0]
    assert (problem.severity, problem.title[:22]) == ("error", "list.csv: has no rows;")


def test_a_video_that_must_not_be_looked_at_is_not_called_missing(read, titles, monkeypatch):
    looked = os.stat

    def refusing(path, *arguments, **more):
        if str(path).endswith("a0.mp4"):
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", refusing)
    problems, listing = read(table("path,class", lambda name, n: f"{name},{name[0]}") + "\ngone.mp4,a\na0.mp4/x.mp4,a")
    assert titles(problems, "that are missing") == [("error", ("line 10: gone.mp4", "line 11: a0.mp4/x.mp4"))]
    assert listing.on_disk == set(NAMES)
    assert inspect_video(read.folder / "a0.mp4").problem == "the video file cannot be read (Permission denied)"


def test_a_name_with_a_backslash_is_told_for_what_it_is(read, files, titles):
    files("videos", r"c\d.mp4", "e/f.mp4")
    text = table("path,class", lambda name, n: f"{name},{name[0]}") + "\n" + "c\\d.mp4,a\ne\\f.mp4,b"
    problems, listing = read(text)
    assert titles(problems, "that are missing") == []
    fault = r"line 10: c\d.mp4: the name is not the name of one file or folder"
    assert titles(problems, "that no clip or class can have") == [("error", (fault,))]
    assert listing.on_disk == {*NAMES, r"c\d.mp4", "e/f.mp4"}
