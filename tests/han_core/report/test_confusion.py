"""The confusion matrix as a picture: every count is where it belongs."""

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np

from han_core.report.confusion import confusion_chart, confusion_parts

SPACE = "{http://www.w3.org/2000/svg}"


def cells(svg):
    """title of each filled cell -> (x, y, opacity)."""
    root = ElementTree.fromstring(svg)
    found = {}
    for rect in root.iter(f"{SPACE}rect"):
        title = rect.find(f"{SPACE}title")
        if title is not None:
            found[title.text] = tuple(float(rect.get(key)) for key in ("x", "y", "fill-opacity"))
    return found


def test_rows_are_true_classes_and_columns_predicted_ones():
    shown = cells(confusion_chart(np.array([[3, 1], [0, 4]]), ["sit", "stand"]))
    assert set(shown) == {
        "sit taken for sit: 3 of 4",
        "sit taken for stand: 1 of 4",
        "stand taken for stand: 4 of 4",
    }
    right, wrong = shown["sit taken for sit: 3 of 4"], shown["sit taken for stand: 1 of 4"]
    assert wrong[0] > right[0]
    assert wrong[1] == right[1]
    assert shown["stand taken for stand: 4 of 4"][2] > right[2] > wrong[2]


def test_clips_that_failed_have_a_column_of_their_own():
    shown = cells(confusion_chart(np.array([[1, 0, 2], [0, 3, 0]]), ["a&b", "c"]))
    assert "a&b taken for (failed): 2 of 3" in shown


def test_of_many_classes_every_name_and_every_count_is_there():
    names = [f"class {n:03}" for n in range(101)]
    svg = confusion_chart(np.full((101, 101), 12), names)
    shown = cells(svg)
    assert len(shown) == 101 * 101
    texts = [text.text for text in ElementTree.fromstring(svg).iter(f"{SPACE}text")]
    assert texts.count("12") == 101 * 101
    assert sorted(set(texts) - {"12"}) == names
    places = sorted({x for x, _, _ in shown.values()})
    assert min(b - a for a, b in pairwise(places)) >= 14, "a letter's height, or names would lie over each other"


def test_of_a_very_long_name_the_middle_is_left_out_and_the_whole_is_its_title():
    long = "throwing a ball " * 4
    svg = confusion_chart([[1]], [long]).decode()
    assert "…" in svg
    assert f"<title>{long}</title>" in svg
    assert float(ElementTree.fromstring(svg).get("width")) < 300


def test_a_cell_leads_to_its_clips_where_they_are_listed():
    _, _, inside = confusion_parts([[1, 2], [0, 4]], ["a & b", 'c "d"'], "clips")
    links = list(ElementTree.fromstring(inside.svg()).iter(f"{SPACE}a"))
    assert [(link.get("href"), link.get("data-class"), link.get("data-predicted")) for link in links] == [
        ("#clips", "a & b", "a & b"),
        ("#clips", "a & b", 'c "d"'),
        ("#clips", 'c "d"', 'c "d"'),
    ]
    _, _, inside = confusion_parts([[1]], ["a"])
    assert "<a " not in inside.elements
