from han_core.datasets.listing import scan_class_folders


def test_scan_finds_videos_of_any_ending_and_reports_the_rest(files, titles):
    root = files(
        "root", "b/2.AVI", "b/1 #;(x)!.mp4", "a/3.webm", "a/notes.txt", "a/inner/4.avi", "stray.csv", "boxes.csv",
        "a/.hidden.avi", ".cache/x.avi",
    )  # fmt: skip
    (root / "empty").mkdir()
    found = scan_class_folders(root, expected=("boxes.csv",))
    assert found.videos == {"a": ("a/3.webm",), "b": ("b/1 #;(x)!.mp4", "b/2.AVI"), "empty": ()}
    assert found.paths == {"a/3.webm", "b/1 #;(x)!.mp4", "b/2.AVI"}
    assert titles(found.problems, "beside the class folders") == [("warning", ("stray.csv",))]
    assert titles(found.problems, "inside class folders") == [("warning", ("a/inner/",))]
    assert titles(found.problems, "not videos") == [("warning", ("a/notes.txt",))]
    assert len(found.problems) == 3


def test_scan_of_a_tidy_root_reports_nothing(files):
    assert scan_class_folders(files("root", "a/1.avi", "b/2.avi")).problems == ()
