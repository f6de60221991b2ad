"""The files of choices are for people, too."""

from pipeline.chosen import read_choices
from pipeline.params import Train
from pipeline.selection.written import write_choices


def test_lists_that_several_splits_share_are_written_out_and_read_back(tmp_path):
    path, settings = tmp_path / "toy.yaml", {"epochs": 3, "views": ["mirrored", "shift1"]}
    write_choices(path, None, "han", {split: (settings, f"{split:016x}") for split in (1, 2)})
    text = path.read_text(encoding="utf-8")
    assert text.count("views: [mirrored, shift1]") == 2
    assert "&" not in text
    choices = read_choices(path, Train())
    write_choices(path, choices, "han", {2: ({"epochs": 4}, f"{2:016x}")})
    again = read_choices(path, Train()).chosen["han"]
    assert again["split_1"] == choices.chosen["han"]["split_1"]
    assert again["split_2"].settings == {"epochs": 4}
