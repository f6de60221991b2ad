"""Vectors on disk."""

import os

import numpy as np
import pytest

from han_core.baselines.fisher.row_store import RowStore


@pytest.fixture
def store(tmp_path):
    with RowStore(tmp_path / "rows", 5) as store:
        for number in range(7):
            store.append(np.arange(5) + 10 * number + 0.1)
        yield store


def test_rows_come_back_by_number_in_float16s_precision(store):
    assert len(store) == 7
    found = store.rows(np.array([6, 0, 6]))
    assert found.dtype == np.float32
    expected = np.float16(np.arange(5) + np.array([[60.1], [0.1], [60.1]]))
    np.testing.assert_array_equal(found, expected)


def test_the_last_block_is_filled_up(store):
    blocks = list(store.blocks(np.array([1, 2, 3, 4, 5]), 3))
    assert [block.shape for block in blocks] == [(3, 5)] * 2
    np.testing.assert_array_equal(np.concatenate(blocks)[:5], store.rows(np.arange(1, 6)))
    assert not blocks[1][2].any()
    assert list(store.blocks(np.array([], int), 3)) == []


def test_it_removes_its_file_however_it_ends(tmp_path):
    def fail() -> None:
        with RowStore(tmp_path / "rows", 2) as store:
            store.append(np.zeros(2))
            assert (tmp_path / "rows").stat().st_size == 4
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_vector_of_another_length_and_a_file_cut_short_are_told(store):
    with pytest.raises(ValueError, match=r"shape \(4,\) among those of 5"):
        store.append(np.zeros(4))
    os.truncate(store.path, 13)
    with pytest.raises(OSError, match="row 1 cannot be read") as error:
        store.rows(np.array([0, 1]))
    assert str(store.path) in str(error.value)
