"""The tables say of every row whether its settings were chosen on the clips that it is scored on."""

import json

import pytest
import yaml
from click.testing import CliRunner

from pipeline.params import ParamsError, load_params
from pipeline.report import __main__ as report
from tests.pipeline.report.test_report import edit, markdown, table
from tests.pipeline.toy_results import write_results

COLUMN = "settings (toy)"
HAN = "Full HAN: spatial cube + temporal cube"
PLAIN = "HAN without attention (1): both cubes, no attention"


@pytest.fixture
def project(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, repository)
    return tmp_path


def run(expected=0):
    result = CliRunner().invoke(report.main, [])
    assert result.exit_code == expected, (result.output, result.exception)
    return result.output


def settings(project):
    """Heading -> row -> last cell."""
    text = markdown(project)
    found = {heading: table(text, heading) for heading in ("Table 1", "Table 2", "Baselines")}
    assert all(rows[""][-1] == COLUMN for rows in found.values())
    return {heading: {row: cells[-1] for row, cells in rows.items() if row} for heading, rows in found.items()}


def choose(project, **sections):
    content = {
        "chosen": {name: {"split_1": {"settings": values, "clips": "0" * 16}} for name, values in sections.items()}
    }
    (project / "choices").mkdir(exist_ok=True)
    (project / "choices/toy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    edit(project, lambda params: params["train"].update(chosen="toy"))


def test_by_default_nothing_is_chosen_and_rows_that_were_not_run_say_nothing(project):
    run()
    found = settings(project)
    assert found["Table 1"][HAN] == found["Table 1"][PLAIN] == "nothing chosen"
    assert found["Table 1"]["Temporal HAN: temporal cube only"] == "-"
    assert found["Table 2"]["iDT [19]"] == "-"
    assert found["Baselines"]["Logistic regression, both streams' cubes averaged over the regions"] == "nothing chosen"
    assert found["Baselines"]["brand_new"] == "-", "nobody knows"
    assert "## Chosen settings" not in markdown(project)


def test_rows_that_were_tuned_on_the_test_clips_are_named_as_such(project):
    edit(project, lambda params: params["report"].update(tuned=["han", "linear", "two_stream"]))
    run()
    found = settings(project)
    tuned = "chosen on the clips it is scored on"
    assert found["Table 1"][HAN] == tuned
    assert found["Table 1"][PLAIN] == "nothing chosen"
    assert sorted(row for row, said in found["Table 2"].items() if said == tuned) == [
        "HAN",
        "Two-stream CNN [16]: both nets, scores averaged",
    ]
    assert found["Baselines"]["Logistic regression, both streams' cubes averaged over the regions"] == tuned
    assert "too good by an unknown amount" in markdown(project)


def test_choices_inside_the_training_groups_are_those_of_han_and_its_variants(project):
    choose(project, han={"epochs": 20, "optimizer.learning_rate": 0.5})
    run()
    found = settings(project)
    inside = "chosen inside the training groups"
    assert found["Table 1"][HAN] == found["Table 1"][PLAIN] == found["Table 2"]["HAN"] == inside
    assert sum(said == inside for rows in found.values() for said in rows.values()) == 3
    rows = table(markdown(project).replace(r"\_", "_"), "Chosen settings")
    assert rows["han"] == rows["no_attention"] == ["1", "epochs: 20, optimizer.learning_rate: 0.5", "han"]


def test_what_was_tuned_stays_tuned_though_other_settings_were_chosen_inside(project):
    """The params' other values are still those that did best on the test clips."""
    choose(project, han={"epochs": 20})
    edit(project, lambda params: params["report"].update(tuned=["han"]))
    run()
    found = settings(project)
    assert found["Table 1"][HAN] == "chosen on the clips it is scored on"
    assert found["Table 1"][PLAIN] == "chosen inside the training groups"


def test_an_ensemble_is_what_its_models_are_and_stacked_vectors_choose_inside_among_several_penalties(project):
    path = project / "metrics/toy/evaluate.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    more = dict.fromkeys(("han_ensemble", "idt", "idt_sfv"), figures["han"])
    path.write_text(json.dumps(figures | more), encoding="utf-8")
    edit(project, lambda params: params["report"].update(tuned=["han"]))
    edit(project, lambda params: params["stacked"].update(penalties=[0.0001, 0.01]))
    run()
    found = settings(project)["Table 2"]
    (ensemble,) = (said for row, said in found.items() if "ensemble of its seeds" in row)
    stacked = found["iDT + stacked Fisher vectors [13]: fisher vectors and stacked Fisher vectors of iDT"]
    idt = found["iDT [19]: improved dense trajectories, Fisher vectors"]
    assert ensemble == "chosen on the clips it is scored on"
    assert stacked == "chosen inside the training groups"
    assert idt == "nothing chosen"


def test_the_presets_say_which_of_their_rows_were_tuned(repository):
    han = ("han", "no_attention", "fc_features", "spatial", "temporal")
    for path in (repository / "params.yaml", *(repository / "presets").glob("[!s]*.yaml")):
        assert load_params(path).report.tuned == (han if path.stem == "ut_interaction" else ()), path


@pytest.mark.parametrize(
    ("tuned", "problem"),
    [(["hann"], "report.tuned.0: "), (["han", "han"], "holds a value twice"), (["han_ensemble"], "report.tuned.0: ")],
)
def test_names_that_are_no_rows_are_refused(project, tuned, problem):
    edit(project, lambda params: params["report"].update(tuned=tuned))
    with pytest.raises(ParamsError, match=problem.replace(".", r"\.")):
        load_params()
