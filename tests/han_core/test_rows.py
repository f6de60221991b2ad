"""The registry of rows: the paper's tables come out of it as the paper prints them."""

import pytest

from han_core.han.variants import VARIANTS
from han_core.rows import ROWS, by_name, ensemble_of, families, rows_of, table_lines, title_of

TABLE_1 = {  # mean accuracy over three splits, UCF-101 and HMDB-51
    "han": (92.7, 64.3),
    "no_attention": (90.6, 62.0),
    "fc_features": (91.1, 62.7),
    "spatial": (75.1, 47.7),
    "temporal": (85.4, 58.3),
}
TABLE_2 = {
    "HOG": (72.4, 40.2),
    "iDT [19]": (85.9, 57.2),
    "iDT + stacked Fisher vectors [13]": (None, 66.8),
    "Spatio-temporal CNN [10]": (65.4, None),
    "Two-stream CNN [16]": (88.0, 59.4),
    "Two-stream CNN + LSTM [22]": (88.6, None),
    "Two-stream + iDT (TDD) [20]": (91.5, 65.9),
    "Soft attention + LSTM [15]": (84.96, 41.3),
    "HAN": (92.7, 64.3),
}


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_table_1_is_the_papers():
    rows = [row for line in table_lines(1).values() for row in line if not row.ensemble_of]
    assert {row.name: (row.paper["ucf101"], row.paper["hmdb51"]) for row in rows} == TABLE_1
    assert list(VARIANTS)[:5] == list(TABLE_1)


def test_table_2_is_the_papers():
    assert list(table_lines(2)) == list(TABLE_2)
    for line, rows in table_lines(2).items():
        (figures,) = (row.paper for row in rows if row.paper)
        assert (figures.get("ucf101"), figures.get("hmdb51")) == TABLE_2[line]
        assert not rows[0].part, "a whole system first"


def test_every_variant_of_han_is_a_row_that_classify_makes():
    assert set(families("classify")) == set(VARIANTS)


def test_each_of_them_has_an_ensemble_below_it_that_the_paper_has_not():
    for name in VARIANTS:
        row, joined = by_name(name), ensemble_of(name)
        assert ROWS.index(joined) == ROWS.index(row) + 1
        assert (joined.name, joined.stage) == (f"{name}_ensemble", "evaluate")
        assert (joined.lines, joined.paper) == (row.lines, {})
        assert joined.title.startswith(row.title)
    assert sum(bool(row.ensemble_of) for row in ROWS) == len(VARIANTS)
    assert ensemble_of("linear") is None


def test_rows_of_a_family_are_made_together():
    assert [row.name for row in rows_of("linear")] == ["linear_spatial", "linear_temporal", "linear"]
    assert rows_of("frame_size") == (by_name("frame_size"),)
    assert rows_of("hog") == (), "no stage makes it"


@pytest.mark.parametrize(("name", "title"), [("linear", "Logistic regression, both"), ("unheard_of", "unheard_of")])
def test_a_row_is_known_by_its_name(name, title):
    assert title_of(name).startswith(title)
