import pytest

from han_core.datasets.listing import linked_inside, scan_class_folders


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


@pytest.mark.parametrize("name", ["a.TS", "b.mts", "c.m2ts", "d.gif", "e.asf", "f.3gp", "g.webm"])
def test_every_usual_ending_counts(files, name):
    assert scan_class_folders(files("root", f"a/{name}")).paths == {f"a/{name}"}


def test_what_systems_and_this_project_leave_behind_does_not_count(files):
    root = files("root", "a/x.mp4", "a/._x.mp4", "a/x.predict.mp4", "a/x.flow.avi", "a/Thumbs.db", "__MACOSX/a/._x.mp4",
                 "@eaDir/a/x.mp4", "a/@eaDir/y.mp4", ".git/z.mp4")  # fmt: skip
    found = scan_class_folders(root)
    assert found.paths == {"a/x.mp4"}
    assert [p for p in found.problems if p.severity == "error"] == []


def test_a_class_folder_that_is_a_link_is_refused_with_the_way_out(files, titles):
    root = files("root", "a/x.mp4")
    (root / "b").symlink_to(files("elsewhere", "y.mp4"))
    found = scan_class_folders(root)
    assert titles(found.problems, "dataset.root itself") == [("error", ("b",))]
    assert found.paths == {"a/x.mp4"}


def test_folders_that_differ_in_unicode_form_only_are_one_class_and_it_is_said(files, titles):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = files("root", f"{composed}/x.mp4", f"{decomposed}/y.mp4")
    found = scan_class_folders(root)
    assert {name: len(paths) for name, paths in found.videos.items()} == {composed: 2}
    assert titles(found.problems, "Unicode form") == [("warning", (composed,))]
    assert found.resolve(f"{composed}/y.mp4") == f"{decomposed}/y.mp4"
    assert found.resolve("nowhere/z.mp4") == "nowhere/z.mp4"


def test_videos_that_lie_too_deep_or_beside_the_classes_are_named_first(files, titles):
    found = scan_class_folders(files("root", "set1/walk/x.mp4", "run/y.mp4", "loose.mp4"))
    assert [p.severity for p in found.problems[:2]] == ["error", "error"]
    assert titles(found.problems, "a folder too deep") == [("error", ("set1/walk/",))]
    assert titles(found.problems, "beside the class folders;") == [("error", ("loose.mp4",))]


def test_a_folder_inside_the_root_that_is_reached_by_a_link_is_a_problem(files):
    root, elsewhere = files("root", "lists/a.txt", "deep/er/a.txt"), files("elsewhere", "b/a.txt")
    (root / "link").symlink_to(elsewhere)
    (root / "deep/link").symlink_to(root / "lists")
    assert linked_inside(root, root / "lists") == linked_inside(root, elsewhere) == linked_inside(root, root) == []
    assert linked_inside(root, root / "link" / ".." / "lists") == []
    for folder, items in (("link", ("link",)), ("link/b", ("link",)), ("deep/link", ("deep/link",))):
        (problem,) = linked_inside(root, root / folder)
        assert (problem.severity, problem.items) == ("error", items)
        assert "DVC does not see what changes behind them; make dataset.root itself the link" in problem.title
    whole = root.with_name("whole")
    whole.symlink_to(root)
    assert linked_inside(whole, whole / "lists") == [], "the root itself may be a link"
