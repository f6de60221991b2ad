from han_core.datasets.checks import check_listing
from han_core.datasets.ut_interaction import list_ut_interaction


def test_set_1_has_ten_folds(shared_data):
    splits = tuple(range(1, 11))
    listing = list_ut_interaction(shared_data / "ut_interaction" / "set1", splits)
    assert listing.classes == ("handshake", "hug", "kick", "point", "punch", "push")
    assert listing.available == splits
    counts = [len(listing.splits[n].test) for n in splits]
    assert counts == [6, 6, 6, 6, 6, 5, 6, 7, 6, 6]
    assert all(len(split.train) + len(split.test) == 60 for split in listing.splits.values())
    assert [p.severity for p in check_listing(listing, splits)] == ["warning"]  # sequence 6 has no punch


def test_split_leaves_its_sequence_out(files):
    root = files("root", "1_hug/0_1_1.avi", "1_hug/1_2_1.avi", "0_shake/2_1_0.avi", "0_shake/3_12_0.avi")
    listing = list_ut_interaction(root, (1,))
    assert listing.classes == ("shake", "hug")
    assert listing.available == (1, 2, 12)
    assert set(listing.splits[1].test) == {"1_hug/0_1_1.avi", "0_shake/2_1_0.avi"}
    assert {v.group for v in listing.videos if v.path in listing.splits[1].train} == {"sequence_02", "sequence_12"}


def test_odd_folders_and_files_are_errors(files, titles):
    root = files("root", "1_hug/0_1_1.avi", "1_hug/1_2_4.avi", "1_hug/x.avi", "kick/2_1_0.avi", "2_hug/5_1_2.avi")
    (root / "3_point").mkdir()
    problems = list_ut_interaction(root, (1,)).problems
    assert titles(problems, "not a new <number>_<class>") == [("error", ("2_hug", "kick"))]
    assert titles(problems, "the folder's number") == [("error", ("1_hug/1_2_4.avi", "1_hug/x.avi"))]
    assert titles(problems, "without a video") == [("error", ("3_point",))]


def test_sequences_that_are_not_there_are_no_splits(files, titles):
    root = files("root", "1_hug/0_11_1.avi")
    problems = check_listing(list_ut_interaction(root, (1,)), (1,))
    assert titles(problems, "not available; there are: 11") == [("error", ("1",))]
