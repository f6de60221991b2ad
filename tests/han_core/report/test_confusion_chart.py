"""The confusion matrix as a picture: every count is where it belongs."""

from xml.etree import ElementTree

import numpy as np

from han_core.report.charts import confusion_chart

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
    assert shown["stand taken for stand: 4 of 4"][2] == 1 > right[2] > wrong[2]


def test_clips_that_failed_have_a_column_of_their_own():
    shown = cells(confusion_chart(np.array([[1, 0, 2], [0, 3, 0]]), ["a&b", "c"]))
    assert "a&b taken for (failed): 2 of 3" in shown


def test_many_classes_fit_without_names():
    svg = confusion_chart(np.eye(101, dtype=int), [f"class{n}" for n in range(101)])
    assert len(cells(svg)) == 101
    assert b"<text" not in svg
    assert float(ElementTree.fromstring(svg).get("width")) < 600
