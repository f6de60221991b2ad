import pytest

from han_core.datasets.checks import check_listing
from han_core.datasets.ucf101 import list_ucf101

OFFICIAL = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


@pytest.fixture
def layout(files):
    """Two classes with their official numbers, two groups, one split."""
    root = files(
        "root",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi",
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g08_c01.avi",
    )
    lists = files("lists")
    (lists / "classInd.txt").write_bytes(b"37 HandstandPushups\r\n3 Archery\r\n")
    (lists / "trainlist01.txt").write_bytes(
        b"Archery/v_Archery_g08_c01.avi 3\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 37\r\n"
    )
    (lists / "testlist01.txt").write_text(
        "Archery/v_Archery_g01_c01.avi\nHandstandPushups/v_HandStandPushups_g01_c01.avi\n"
    )
    return root, lists


def test_official_lists_have_the_official_counts(shared_data, tmp_path):
    listing = list_ucf101(tmp_path, shared_data / "splits" / "ucfTrainTestlist", (1, 2, 3))
    assert {n: (len(s.train), len(s.test)) for n, s in listing.splits.items()} == OFFICIAL
    assert len(listing.classes) == 101
    assert (listing.classes[0], listing.classes[36], listing.classes[100]) == (
        "ApplyEyeMakeup", "HandstandPushups", "YoYo",
    )  # fmt: skip
    assert len(listing.videos) == 13320
    assert len({video.group for video in listing.videos}) == 25
    # Nothing but the videos themselves, of which there are none here, is wrong with the official lists.
    problems = check_listing(listing, (1, 2, 3))
    assert [(p.title, len(p.items)) for p in problems] == [
        ("videos that the split files name and that are missing", 13320)
    ]


def test_mini_subset_in_the_official_layout(shared_data):
    mini = shared_data / "ucf101_mini"
    listing = list_ucf101(mini / "UCF-101", mini / "ucfTrainTestlist", (1, 2, 3))
    assert {n: (len(s.train), len(s.test)) for n, s in listing.splits.items()} == dict.fromkeys((1, 2, 3), (108, 42))
    assert listing.classes == ("BabyCrawling", "Punch", "PushUps")
    assert check_listing(listing, (1, 2, 3)) == []


def test_class_comes_from_the_folder_and_order_from_the_official_number(layout):
    listing = list_ucf101(*layout, (1,))
    assert listing.classes == ("Archery", "HandstandPushups")
    by_path = {video.path: video for video in listing.videos}
    odd = by_path["HandstandPushups/v_HandStandPushups_g01_c01.avi"]
    assert (odd.class_name, odd.group, odd.name) == ("HandstandPushups", "g01", "v_HandStandPushups_g01_c01")
    assert check_listing(listing, (1,)) == []


def test_labels_follow_the_official_numbers_and_not_the_names(layout):
    root, lists = layout
    (lists / "classInd.txt").write_text("9 Archery\n2 HandstandPushups\n")
    assert list_ucf101(root, lists, (1,)).classes == ("HandstandPushups", "Archery")


def test_faulty_lists_are_reported_with_file_and_line(layout, titles):
    root, lists = layout
    (lists / "trainlist01.txt").write_text(
        "Archery/v_Archery_g08_c01.avi 4\n\nnonsense\nArchery/v_Archery_g08_c01.avi 3\n"
        "Golf/v_Golf_g08_c01.avi 2\nArchery/take_two.avi 3\n"
    )
    problems = list_ucf101(root, lists, (1,)).problems
    assert titles(problems, "not <class>/<video>") == [("error", ("trainlist01.txt line 3: nonsense",))]
    assert titles(problems, "not those of classInd.txt") == [
        ("error", ("trainlist01.txt line 1: Archery/v_Archery_g08_c01.avi has 4, not 3",))
    ]
    assert titles(problems, "repeat an earlier one") == [
        ("warning", ("trainlist01.txt line 4: Archery/v_Archery_g08_c01.avi",))
    ]
    assert titles(problems, "does not list") == [("error", ("trainlist01.txt line 5: Golf",))]
    assert titles(problems, "without a group") == [("error", ("Archery/take_two.avi",))]


def test_class_index_is_checked(layout, titles):
    root, lists = layout
    (lists / "classInd.txt").write_text("3 Archery\n3 HandstandPushups\nGolf\n")
    assert titles(list_ucf101(root, lists, (1,)).problems, "not a new `<number> <class>`") == [
        ("error", ("line 2: 3 HandstandPushups", "line 3: Golf"))
    ]
    (lists / "classInd.txt").unlink()
    assert [p.severity for p in list_ucf101(root, lists, (1,)).problems] == ["error"]


def test_classes_without_a_clip_are_noted_and_get_no_label(layout, titles):
    root, lists = layout
    (lists / "classInd.txt").write_text("1 Golf\n3 Archery\n37 HandstandPushups\n")
    listing = list_ucf101(root, lists, (1,))
    assert listing.classes == ("Archery", "HandstandPushups")
    assert titles(listing.problems, "without a clip") == [("note", ("Golf",))]


def test_a_split_needs_both_lists(layout, titles):
    root, lists = layout
    (lists / "trainlist02.txt").write_text("Archery/v_Archery_g08_c01.avi 3\n")
    problems = check_listing(list_ucf101(root, lists, (1, 2)), (1, 2))
    assert titles(problems, "not available; there are: 1") == [("error", ("2",))]


def test_split_files_behind_a_link_inside_the_root_are_refused(layout, titles):
    root, lists = layout
    (root / ".lists").symlink_to(lists)
    assert titles(list_ucf101(root, lists, (1,)).problems, "that are links") == []
    assert titles(list_ucf101(root, root / ".lists", (1,)).problems, "that are links") == [("error", (".lists",))]
