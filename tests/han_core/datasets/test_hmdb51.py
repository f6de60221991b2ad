import pytest

from han_core.datasets.checks import check_listing
from han_core.datasets.hmdb51 import film, list_hmdb51

FLAGS = {1: {"wave": "#odd; (a) & [b]!_wave_u_nm_np1_fr_goo_0.avi 1 \nx y_wave_u_cm_np2_le_bad_1.avi 2 \nz.avi 0 \n",
             "run": "film_run_f_cm_np10_ri_med_0.avi 1 \nfilm_run_f_cm_np10_ri_med_1.avi 2 \n"}}  # fmt: skip


@pytest.fixture
def layout(files):
    root = files(
        "root",
        "wave/#odd; (a) & [b]!_wave_u_nm_np1_fr_goo_0.avi",
        "wave/x y_wave_u_cm_np2_le_bad_1.avi",
        "wave/z.avi",
        "run/film_run_f_cm_np10_ri_med_0.avi",
        "run/film_run_f_cm_np10_ri_med_1.avi",
    )
    for split, classes in FLAGS.items():
        for name, text in classes.items():
            lists = files("lists", f"{name}_test_split{split}.txt", text=text)
    return root, lists


def test_official_files_have_the_official_counts(shared_data, tmp_path):
    listing = list_hmdb51(tmp_path, shared_data / "splits" / "testTrainMulti_7030_splits", (1, 2, 3))
    assert {n: (len(s.train), len(s.test)) for n, s in listing.splits.items()} == dict.fromkeys((1, 2, 3), (3570, 1530))
    assert len(listing.classes) == 51
    assert listing.classes[:2] == ("brush_hair", "cartwheel")
    for split in listing.splits.values():
        for name in listing.classes:
            assert [sum(p.startswith(f"{name}/") for p in side) for side in (split.train, split.test)] == [70, 30]
    errors = [p for p in check_listing(listing, (1, 2, 3)) if p.severity == "error"]
    assert [p.title for p in errors] == ["videos that the split files name and that are missing"]
    # Clips that no split uses at all are not clips of the table.
    assert len(errors[0].items) == len(listing.videos) < 6766


def test_odd_names_and_flags(layout):
    listing = list_hmdb51(*layout, (1,))
    assert listing.classes == ("run", "wave")
    assert listing.splits[1].train == (
        "run/film_run_f_cm_np10_ri_med_0.avi", "wave/#odd; (a) & [b]!_wave_u_nm_np1_fr_goo_0.avi",
    )  # fmt: skip
    assert listing.splits[1].test[1] == "wave/x y_wave_u_cm_np2_le_bad_1.avi"
    assert "wave/z.avi" not in {video.path for video in listing.videos}


def test_a_film_in_train_and_test_is_a_note_and_flag_0_is_no_extra_video(layout):
    problems = check_listing(list_hmdb51(*layout, (1,)), (1,))
    assert [(p.severity, p.items) for p in problems] == [("note", ("film",))]


@pytest.mark.parametrize(
    ("name", "class_name", "expected"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair", "April_09"),
        ("prelinger_LetsBeGo1953_wave_u_cm_np10_ba_med_2.avi", "wave", "prelinger_LetsBeGo1953"),
        ("someone's own clip.avi", "wave", "someone's own clip"),
        ("a_wave_b_run_f_cm_np1_ri_med_0.avi", "wave", "a_wave_b_run_f_cm_np1_ri_med_0"),
    ],
)
def test_group_is_the_film(name, class_name, expected):
    assert film(name, class_name) == expected


def test_every_official_name_tells_its_film(shared_data, tmp_path):
    listing = list_hmdb51(tmp_path, shared_data / "splits" / "testTrainMulti_7030_splits", (1, 2, 3))
    assert [video.path for video in listing.videos if video.group == video.name] == []


def test_faulty_files_are_reported(layout, files, titles):
    root, lists = layout
    (lists / "run_test_split1.txt").write_text("a.avi 1\na.avi 2\nb.avi 3\nc.avi\n../d.avi 1\n.. 1\ne\0.avi 1\n")
    (lists / "run_test_split2.txt").write_text("a.avi 1\n")
    listing = list_hmdb51(root, lists, (1, 2, 4))
    assert titles(listing.problems, "not <video> <0, 1 or 2>") == [
        (
            "error",
            tuple(
                f"run_test_split1.txt line {line}"
                for line in ("3: b.avi 3", "4: c.avi", "5: ../d.avi 1", "6: .. 1", "7: e\0.avi 1")
            ),
        )
    ]
    assert titles(listing.problems, "names twice") == [("error", ("run_test_split1.txt line 2: a.avi",))]
    assert titles(listing.problems, "other splits have") == [("error", ("wave_test_split2.txt",))]
    problems = check_listing(listing, (1, 2, 4))
    assert titles(problems, "both train and test")[0] == ("error", ("run/a.avi",))
    assert titles(problems, "not available; there are: 1, 2") == [("error", ("4",))]


def test_split_files_behind_a_link_inside_the_root_are_refused(layout, titles):
    root, lists = layout
    (root / ".lists").symlink_to(lists)
    assert titles(list_hmdb51(root, lists, (1,)).problems, "that are links") == []
    assert titles(list_hmdb51(root, root / ".lists", (1,)).problems, "that are links") == [("error", (".lists",))]
