from dataclasses import replace

import pytest

from han_core.datasets.checks import check_listing
from han_core.datasets.folder import FolderRules, list_folder

NAMES = [f"{c}/{c}_p{p}_{i}.mp4" for c in ("bow", "sit") for p in range(6) for i in range(2)]
PEOPLE = r"_(p\d)_"


@pytest.fixture
def root(files):
    return files("root", *NAMES)


def groups_of(listing, paths):
    group = {video.path: video.group for video in listing.videos}
    return {group[path] for path in paths}


def test_fraction_draws_whole_groups_anew_for_each_split(root):
    rules = FolderRules(group_pattern=PEOPLE, test_share=0.34)
    listing = list_folder(root, rules, (1, 2, 7), seed=1)
    assert listing.classes == ("bow", "sit")
    assert check_listing(listing, (1, 2, 7)) == []
    tests = {n: frozenset(groups_of(listing, split.test)) for n, split in listing.splits.items()}
    assert {len(groups) for groups in tests.values()} == {2}
    assert len(set(tests.values())) > 1
    for number, split in listing.splits.items():
        assert groups_of(listing, split.train) == {f"p{i}" for i in range(6)} - tests[number]
        assert sorted([*split.train, *split.test]) == sorted(NAMES)
    assert list_folder(root, rules, (1, 2, 7), seed=1) == listing
    assert list_folder(root, rules, (1, 2, 7), seed=2) != listing


def test_fold_tests_on_every_group_once(root):
    rules = FolderRules(group_pattern=PEOPLE, split_by="fold", folds=3)
    listing = list_folder(root, rules, (1, 2, 3), seed=1)
    assert check_listing(listing, (1, 2, 3)) == []
    tested = [group for split in listing.splits.values() for group in groups_of(listing, split.test)]
    assert sorted(tested) == [f"p{i}" for i in range(6)]


def test_a_fold_beyond_the_folds_is_not_available(root, titles):
    rules = FolderRules(group_pattern=PEOPLE, split_by="fold", folds=3)
    problems = check_listing(list_folder(root, rules, (4,), seed=1), (4,))
    assert titles(problems, "not available; there are: 1, 2, 3") == [("error", ("4",))]


def test_without_a_pattern_every_clip_is_a_group_and_every_class_is_tested(root):
    listing = list_folder(root, FolderRules(test_share=0.25), (1,), seed=1)
    assert len({video.group for video in listing.videos}) == len(NAMES)
    assert sorted(path.split("/")[0] for path in listing.splits[1].test) == ["bow"] * 3 + ["sit"] * 3


@pytest.mark.parametrize(("pattern", "group"), [(r"_(p\d)_", "p0"), (r"p\d", "p0"), (r"^(?:bow|sit)_(p(\d))", "p0")])
def test_group_is_the_first_group_of_the_pattern_or_its_match(root, pattern, group):
    listing = list_folder(root, FolderRules(group_pattern=pattern), (1,), seed=1)
    assert listing.videos[0].group == group


def test_names_without_a_group_and_bad_patterns_are_errors(root, files, titles):
    files("root", "bow/odd.mp4")
    listing = list_folder(root, FolderRules(group_pattern=PEOPLE), (1,), seed=1)
    assert titles(listing.problems, "finds no group") == [("error", ("bow/odd.mp4",))]
    listing = list_folder(root, FolderRules(group_pattern="(p"), (1,), seed=1)
    assert titles(listing.problems, "not a regular expression") == [("error", ())]


def test_empty_class_folders_are_errors(root, titles):
    (root / "nod").mkdir()
    listing = list_folder(root, FolderRules(), (1,), seed=1)
    assert titles(listing.problems, "without a video") == [("error", ("nod",))]


def test_lists_say_the_splits_and_need_no_labels(root, files, titles):
    train, test = NAMES[:6] + NAMES[12:18], NAMES[7:9] + NAMES[18:20]
    lists = files("lists", "trainlist1.txt", text="\n".join(train))
    files("lists", "testlist01.txt", text="\n".join(f"{name} 1" for name in test))
    rules = FolderRules(group_pattern=PEOPLE, split_by="list", annotations=lists)
    listing = list_folder(root, rules, (1,), seed=1)
    assert listing.splits[1].train == tuple(train)
    assert listing.splits[1].test == tuple(test)
    problems = check_listing(listing, (1,))
    assert titles(problems, "no requested split mentions")[0][0] == "warning"
    assert len(titles(problems, "no requested split mentions")[0][1]) == len(NAMES) - 16
    assert titles(problems, "groups of split 1") == []
    assert all(problem.severity == "warning" for problem in problems)


def test_lists_that_straddle_are_warned_of_and_missing_videos_are_errors(root, files, titles):
    lists = files("lists", "trainlist01.txt", text=f"{NAMES[0]}\n{NAMES[12]}\nbow/gone_p9_0.mp4\n")
    files("lists", "testlist01.txt", text=f"{NAMES[1]}\n{NAMES[14]}\n")
    rules = FolderRules(group_pattern=PEOPLE, split_by="list", annotations=lists)
    problems = check_listing(list_folder(root, rules, (1,), seed=1), (1,))
    assert titles(problems, "are missing") == [("error", ("bow/gone_p9_0.mp4",))]
    assert titles(problems, "groups of split 1") == [("warning", ("p0",))]


def test_folders_of_a_split_are_read_as_the_split(files, titles):
    root = files("root", "train/a/1.mp4", "train/b/1.mp4", "val/a/1.mp4", "test/a/1.mp4", "test/b/2.mp4")
    listing = list_folder(root, FolderRules(), (1,), seed=1)
    assert listing.splits[1].train == ("train/a/1.mp4", "train/b/1.mp4")
    assert listing.splits[1].validation == ("val/a/1.mp4",)
    assert listing.splits[1].test == ("test/a/1.mp4", "test/b/2.mp4")
    assert listing.classes == ("a", "b")
    assert {video.name for video in listing.videos if video.class_name == "a"} == {"train-1", "val-1", "test-1"}
    assert titles(listing.problems, "read as split 1") == [("note", ())]
    assert check_listing(listing, (1,))[-1].severity != "error"
    assert titles(check_listing(list_folder(root, FolderRules(), (2,), seed=1), (2,)), "not available") == [
        ("error", ("2",))
    ]


def test_classes_that_are_called_train_are_classes(files):
    listing = list_folder(files("root", "train/1.mp4", "test/2.mp4", "walk/3.mp4"), FolderRules(), (1,), seed=1)
    assert listing.classes == ("test", "train", "walk")


def test_a_clip_of_a_stem_that_occurs_twice_is_a_group_by_class_and_stem(files):
    listing = list_folder(files("root", "a/1.mp4", "b/1.mp4", "b/2.mp4"), FolderRules(), (1,), seed=1)
    assert {video.path: video.group for video in listing.videos} == {
        "a/1.mp4": "a/1", "b/1.mp4": "b/1", "b/2.mp4": "2"
    }  # fmt: skip


def test_a_list_in_another_unicode_form_names_the_same_files(files):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = files("root", f"{decomposed}/x.mp4", f"{decomposed}/y.mp4", "tea/z.mp4", "tea/w.mp4")
    lists = files("lists", "trainlist01.txt", text=f"{composed}/x.mp4\ntea/z.mp4\n")
    (lists / "testlist01.txt").write_text(f"{composed}/y.mp4\ntea/w.mp4\n", encoding="utf-8")
    listing = list_folder(root, FolderRules(split_by="list", annotations=lists), (1,), seed=1)
    assert set(listing.splits[1].train) == {f"{decomposed}/x.mp4", "tea/z.mp4"}
    assert listing.classes == (composed, "tea")
    assert check_listing(listing, (1,)) == []


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_of_a_split_that_is_a_link_is_refused_as_a_linked_class_is(files, inside):
    root = files("root", "test/a/1.mp4", "test/b/2.mp4")
    target = files("root/.kept" if inside else "outside", "a/1.mp4", "b/1.mp4")
    (root / "train").symlink_to(target)
    (problem,) = check_listing(list_folder(root, FolderRules(), (1,), seed=1), (1,))
    assert (problem.severity, problem.items) == ("error", ("train",))
    assert (
        "folders that are links: DVC does not see what changes behind them; make dataset.root itself" in problem.title
    )


def test_split_files_behind_a_link_inside_the_root_are_refused(root, files, titles):
    lists = files("lists", "trainlist01.txt", text=f"{NAMES[0]}\n{NAMES[12]}\n")
    files("lists", "testlist01.txt", text=f"{NAMES[2]}\n{NAMES[14]}\n")
    (root / "bow/lists").symlink_to(lists)
    rules = FolderRules(group_pattern=PEOPLE, split_by="list", annotations=root / "bow/lists")
    problems = list_folder(root, rules, (1,), seed=1).problems
    assert titles(problems, "that are links") == [("error", ("bow/lists",))]
    assert titles(list_folder(root, replace(rules, annotations=lists), (1,), seed=1).problems, "that are links") == []
