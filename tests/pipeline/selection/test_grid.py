"""A grid file is refused before any work, with every problem named."""

from pathlib import Path

import pytest
import yaml

from pipeline.chosen import with_settings
from pipeline.params import ParamsError, Train
from pipeline.selection.grid import read_grid

PRESETS = Path(__file__).parents[3] / "presets"


def read(tmp_path, content, train=None):
    path = tmp_path / "grid.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return read_grid(path, train or Train())


def refused(tmp_path, content):
    with pytest.raises(ParamsError) as caught:
        read(tmp_path, content)
    return caught.value.message


def test_every_value_with_every_other_in_the_order_of_the_file(tmp_path):
    grid = read(tmp_path, {"grid": {"epochs": [20, 60], "optimizer.learning_rate": [1, 0.5]}})
    assert (grid.model, grid.folds, grid.seeds) == ("han", 3, (1,))
    assert [tuple(settings.values()) for settings in grid.combinations] == [(20, 1), (20, 0.5), (60, 1), (60, 0.5)]
    assert list(grid.combinations[0]) == ["epochs", "optimizer.learning_rate"]


def test_groups_of_keys_may_be_written_as_such(tmp_path):
    dotted = [{"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}, {"epochs": 3}]
    nested = [{"optimizer": {"name": "sgd", "learning_rate": 0.1}}, {"epochs": 3}]
    assert read(tmp_path, {"candidates": nested}) == read(tmp_path, {"candidates": dotted})
    assert read(tmp_path, {"grid": {"optimizer": [{"name": "sgd"}, {"name": "adam"}]}}).combinations[1] == {
        "optimizer.name": "adam"
    }


def test_lists_of_a_combination_become_settings(tmp_path):
    grid = read(tmp_path, {"candidates": [{"views": ["mirrored", "shift1"]}, {"epochs": 3}]})
    assert with_settings(Train(), grid.combinations[0]).views == ("mirrored", "shift1")


def test_the_grid_that_comes_along_can_be_tried():
    grid = read_grid(PRESETS / "select_han.yaml", Train())
    assert len({with_settings(Train(), settings) for settings in grid.combinations}) == len(grid.combinations) > 1


def test_all_problems_at_once(tmp_path):
    content = {"grid": {"epoch": [1], "dropout": [0.5, 2], "optimizer.name": ["adam", "best"], "batch": []}}
    text = refused(tmp_path, content)
    assert "grid.yaml: 4 problems" in text
    assert "grid.epoch: unknown key; did you mean epochs?" in text
    assert "grid.dropout: input should be less than 1, not 2" in text
    assert "grid.optimizer.name: input should be 'adadelta', 'adam' or 'sgd', not 'best'" in text
    assert "grid.batch: is empty" in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "must be a mapping"),
        ("[1, 2]", "must be a mapping"),
        ("grid: 5", "grid: "),
        ("grid: [epochs]", "grid: "),
        ("grid: {}", "grid: holds no combination"),
        ("candidates: []", "candidates: holds no combination"),
        ("candidates: [5]", "candidates"),
        ("folds: 3", "grid: must be given, or candidates, but not both"),
        ("{grid: {epochs: [1]}, candidates: [{epochs: 1}]}", "grid: must be given, or candidates, but not both"),
        ("grid: {epochs: 20}", "grid.epochs: "),
        ("grid: {5: [1]}", "grid.5"),
        ("grid: {epochs: [1.5]}", "grid.epochs: "),
        ("grid: {epochs: ['20']}", "grid.epochs: "),
        ("grid: {epochs: [true]}", "grid.epochs: "),
        ("grid: {optimizer.learning_rate: [.nan]}", "grid.optimizer.learning_rate: "),
        ("grid: {optimizer: [adam]}", "grid.optimizer: must be a group of keys"),
        ("grid: {optimizer.name.x: [adam]}", "grid.optimizer.name"),
        ("grid: {seeds: [[1]]}", "grid.seeds: is no setting of a model"),
        ("grid: {chosen: [toy]}", "grid.chosen: is no setting of a model"),
        ("grid: {epochs: [20, 20]}", "gives the same settings as {epochs: 20}"),
        ("candidates: [{epochs: 20, dropout: 0.5}, {epochs: 20}]", "gives the same settings as"),
        ("candidates: [{epochs: 20}, {epochs: x}]", "candidates.2.epochs: "),
        ("{model: best, grid: {epochs: [1]}}", "model: "),
        ("{model: soft_attention_lstm, grid: {layers: [1, 2]}}", "layers: is no setting of soft_attention_lstm"),
        ("{model: no_attention, grid: {attention: [content]}}", "attention: is no setting of no_attention"),
        ("{folds: 1, grid: {epochs: [1]}}", "folds: "),
        ("{seeds: [], grid: {epochs: [1]}}", "seeds: is empty"),
        ("{seeds: [1, 1], grid: {epochs: [1]}}", "seeds: holds a value twice"),
        ("{seed: [1], grid: {epochs: [1]}}", "seed: unknown key; did you mean seeds?"),
        ("grid: {attention: [content], attention_deviation: [0.1]}", "attention_deviation is of attention: location"),
        ("grid: !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_what_is_no_grid_is_told_plainly(tmp_path, content, problem):
    assert problem in refused(tmp_path, content)


def test_a_thousand_combinations_and_no_more(tmp_path):
    values = list(range(1, 11))
    assert len(read(tmp_path, {"grid": {"batch": values, "epochs": values, "skip": values}}).combinations) == 1000
    text = refused(tmp_path, {"grid": {"batch": [*values, 11], "epochs": values, "skip": values}})
    assert "grid: makes 1100 combinations; at most 1000 can be tried" in text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read"):
        read_grid(tmp_path / "none.yaml", Train())


def test_what_a_value_needs_of_others_is_asked_of_the_whole_combination(tmp_path):
    """Neither alone, beside the params' own values, but together they are sound."""
    base = Train(attention="content")
    content = {"candidates": [{"attention": "location", "attention_deviation": 0.1}]}
    assert len(read(tmp_path, content, base).combinations) == 1
