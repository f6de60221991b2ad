"""The report of made-up results: what stands where, and that nothing is left out in silence."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from han_core.clips import read_clips, write_clips
from han_core.cubes.statistics import StoreStatistics, write_statistics
from han_core.predictions import read_attention, read_predictions, write_attention
from pipeline.costs import stage_runs
from pipeline.curve import Curve
from pipeline.params import load_params
from pipeline.paths import Paths
from pipeline.report import __main__ as report
from pipeline.report import pictures as report_pictures
from pipeline.shown_clips import choose_clips
from tests.pipeline.toy_results import CLASSES, CLIPS, TOP1, write_results


@pytest.fixture
def project(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, repository)
    return tmp_path


def run(expected=0):
    result = CliRunner().invoke(report.main, [])
    assert result.exit_code == expected, (result.output, result.exception)
    return result.output


def edit(project, change):
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    change(params)
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def table(text, heading):
    """Rows of the first table under a heading, as {first cell: other cells}, the header under ''."""
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    first = part[part.index("\n|") + 1 :].split("\n\n", 1)[0]
    lines = first.splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {"": rows[0][1:]} | {row[0].replace("\\", ""): row[1:] for row in rows[2:]}


def markdown(project):
    return (project / "report/toy/report.md").read_text(encoding="utf-8")


def test_table_1_has_every_variant_and_the_papers_figures(project):
    run()
    rows = table(markdown(project), "Table 1")
    assert rows[""] == ["toy", "UCF-101, ours", "UCF-101, paper", "HMDB-51, ours", "HMDB-51, paper", "settings (toy)"]
    full = rows["Full HAN: spatial cube + temporal cube"]
    assert full == ["50.0 (2 / 4)", "91.2 (4 / 4)", "92.7", "missing", "64.3", "nothing chosen"]
    assert rows["Temporal HAN: temporal cube only"] == ["missing", "missing", "85.4", "missing", "58.3", "-"]
    assert len(rows) == 6


def test_table_2_has_ours_beside_the_papers(project):
    run()
    rows = table(markdown(project), "Table 2")
    shown = next(cells for title, cells in rows.items() if title.startswith("Two-stream CNN [16]"))
    assert shown == ["75.0 (3 / 4)", "missing", "88.0", "missing", "59.4", "nothing chosen"]
    assert rows["iDT + stacked Fisher vectors [13]"] == ["missing", "missing", "-", "missing", "66.8", "-"]
    assert rows["Soft attention + LSTM [15]"][:3] == ["missing", "missing", "84.96"]


def test_what_a_row_took_stands_beside_its_accuracy_where_it_is_asked_for(project):
    run()
    assert "What it costs" not in markdown(project), "reports of the same results have the same bytes"
    logs = project / "logs/toy/costs.csv"
    logs.parent.mkdir(parents=True)
    (project / "data/toy/flow").mkdir(parents=True, exist_ok=True)
    (project / "data/toy/flow/failures.csv").touch()
    stages = [stage for stage in stage_runs(load_params()) if stage.name.startswith(("classify@", "flow"))]
    lines = [f"{stage.name},{8 if stage.name == 'flow' else 1},80.0,1" for stage in stages]
    logs.write_text("\n".join(["stage,made,cpu_seconds,seconds", *lines, ""]), encoding="utf-8")
    edit(project, lambda params: params["report"].update(costs=True))
    run()
    rows = table(markdown(project), "What it costs")
    clips = len(read_clips(project / "data/toy/clips.csv").clips)
    han = rows["Full HAN (spatial CNN cube + temporal CNN cube)"]
    assert han[:2] == ["50.0", f"{80 / clips + 10:.3g}"], "a run of classify is for all clips, flow made eight files"
    assert "train@" in han[3]
    assert "classify@" not in han[3]


def test_how_a_row_differs_from_the_original_stands_below_table_2(project):
    run()
    assert "Reruns and differences" not in markdown(project), "of rows that were not run"
    path = project / "metrics/toy/evaluate.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(figures | {"idt": figures["han"], "hof": figures["han"]}), encoding="utf-8")
    run()
    text = markdown(project)
    notes = text.split("Reruns and differences", 1)[1].split("\n## ", 1)[0]
    line, hof = (line for line in notes.splitlines() if line.startswith("| iDT"))
    assert "76.0 / 48.9" in hof
    assert "84.7 / 57.2 in TDD" in line
    assert "no human detector" in line
    table_2 = text.split("## Table 2", 1)[1].split("Reruns and differences", 1)[0]
    assert r"| iDT \[19\]: improved dense trajectories, Fisher vectors | 50.0 (2 / 4) |" in table_2
    assert r"| iDT \[19\]: HOF alone | 50.0" in table_2


def test_every_row_of_evaluate_is_somewhere(project):
    """A row that the report has never heard of stands among the baselines, under its name."""
    run()
    text = markdown(project)
    rows = table(text, "Baselines")
    assert rows["brand_new"] == ["12.5 (0 / 4)", "-"]
    for top1 in TOP1.values():
        assert f"{100 * top1:.1f} (" in text
    assert "± 0.0" not in text, "one split has no spread"


def test_the_store_is_told_as_the_cubes_stage_counted_it(project):
    write_statistics(StoreStatistics(3, (25, 512, 14, 14), 0.943, 2_000_000, 100_000, 150_000), COUNTED)
    run()
    rows = table(markdown(project), "The store")
    assert rows["spatial, split 1"] == ["3", "25 x 512 x 14 x 14", "94.3", "2.0", "0.1", "20.0", "0.1"]
    COUNTED.unlink()
    run()
    assert "spatial, split 1" not in table(markdown(project), "The store")


COUNTED = Path("metrics/toy/store/spatial-1.json")


def test_strips_are_pictures_of_test_clips_with_frames_map_and_flow(project):
    run()
    text = markdown(project)
    for n in (1, 2):
        picture = cv2.imread(str(project / f"report/toy/attention-{n}.jpg"))
        assert picture.shape == (3 * 128, 3 * 171, 3)
        assert f"(attention-{n}.jpg)" in text
    tested = [name for name in CLIPS if not name.endswith("_0")]
    shown = [name.replace("\\", "") for name in re.findall(r"^(\S+): (?:hand|kick)", text, re.MULTILINE)]
    assert shown == [tested[0], tested[-1]]


def test_the_map_of_soft_attention_stands_below_that_of_han(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, repository, models=("soft_attention_lstm", "han"))
    run()
    picture = cv2.imread(str(tmp_path / "report/toy/attention-1.jpg")).astype(int)
    assert picture.shape == (4 * 128, 3 * 171, 3)
    han, soft = picture[128:256], picture[256:384]
    assert abs(han - soft).mean() > 2, "two models, two maps"
    # Their maps lie over the same frame: HAN's first is uniform, [15]'s is not, because its h_0 sees the clip.
    text = markdown(tmp_path)
    assert "attention maps of HAN and of soft attention" in text


def test_a_clip_that_failed_before_is_left_out_of_the_pictures(project):
    """And the stage continues: the failure was allowed, and it is in the tables."""
    path = project / "data/toy/predictions/han-1-seed1/han.attention.safetensors"
    whole = read_attention(path)
    kept = [name for name in whole.maps if name != "kick/kick_2"]
    write_attention(path, kept, np.stack([whole.maps[n] for n in kept]), np.stack([whole.frames[n] for n in kept]))
    run()
    assert (project / "report/toy/attention-1.jpg").is_file()
    assert not (project / "report/toy/attention-2.jpg").exists()
    assert "kick\\_2:" not in markdown(project)


def test_the_first_map_is_said_to_be_uniform_only_where_it_is(project):
    run()
    words = "The first map of HAN is uniform"
    assert words in markdown(project)
    path = project / "data/toy/predictions/han-1-seed1/han.attention.safetensors"
    whole = read_attention(path)
    maps = np.stack([np.roll(maps, 1, axis=0) for maps in whole.maps.values()])
    write_attention(path, list(whole.maps), maps, np.stack(list(whole.frames.values())))
    run()
    assert words not in markdown(project)


def test_clips_can_be_chosen_by_name(project):
    edit(project, lambda params: params["report"].update(clips=["kick_2"]))
    run()
    assert (project / "report/toy/attention-1.jpg").is_file()
    assert not (project / "report/toy/attention-2.jpg").exists()
    assert "kick\\_2: kick" in markdown(project)
    edit(project, lambda params: params["report"].update(clips=["kick_0", "kick_2", "nobody"]))
    said = run(expected=1)
    assert "report.clips: kick_0, nobody: no test clip" in said
    assert "Traceback" not in said


def test_fine_tuning_is_drawn_for_the_nets_that_were_trained(project):
    params = load_params("params.yaml")
    pictures = {block.name: block.data.decode() for block in report_pictures.curves(params, Paths.of(params))[1:]}
    assert list(pictures) == ["curve-finetune-loss.svg", "curve-loss.svg", "curve-top1.svg"]
    assert ">spatial<" in pictures["curve-finetune-loss.svg"]
    assert ">temporal<" not in pictures["curve-finetune-loss.svg"]
    edit(project, lambda params: (params["finetune"].update(splits=[]), params["cubes"].update(nets="ucf101")))
    params = load_params("params.yaml")
    names = [block.name for block in report_pictures.curves(params, Paths.of(params))[1:]]
    assert names == ["curve-loss.svg", "curve-top1.svg"], "nets of another dataset, curves of another report"


def test_a_curve_is_the_mean_over_the_splits_where_all_have_it(project):
    with Curve(project / "plots/toy/train/han-2-seed1") as curve:
        for n in range(2, 6):
            curve.add(n, {"loss": 4 / n})
    runs = [project / f"plots/toy/train/han-{split}-seed1" for split in (1, 2)]
    mean = report_pictures._mean_curve(runs, "loss")
    assert mean == pytest.approx({n: 3 / n for n in range(2, 6)}, rel=1e-5)
    assert report_pictures._mean_curve(runs, "top1") == {}
    assert report_pictures._mean_curve([], "loss") == {}


SEEDS = (7, 3)


@pytest.fixture
def two_seeds(repository, tmp_path, monkeypatch):
    """Results of two seeds, and an ensemble of them; on UCF-101, over two splits, too."""
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path, repository, seeds=SEEDS)
    for name, splits in (("toy", {"split_1": 0.5}), ("ucf101", {"split_1": 0.9, "split_2": 0.92})):
        path = tmp_path / f"metrics/{name}/evaluate.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        spread = {"right": {"seed_7": 1, "seed_3": 2}, "top1": {"mean": 0.5, "std": 0.125}}
        figures = found["han"] | {"right": 1.5, "missing": 0.0, "seeds": list(SEEDS), "over_seeds": spread}
        figures["top1"] = {"mean": figures["top1"]["mean"], "std": 0.01, **splits}
        joined = {"top1": {"mean": 0.75, "std": 0.0, "split_1": 0.75}, "right": 3, "clips": 4, "missing": 0}
        own = {"han": figures, "han_ensemble": joined} if name == "toy" else {"han": figures}
        path.write_text(json.dumps({**own, **{k: v for k, v in found.items() if k != "han"}}), encoding="utf-8")
    return tmp_path


def test_the_spread_over_seeds_stands_beside_that_over_splits_and_the_text_says_which_is_which(two_seeds):
    run()
    text = markdown(two_seeds)
    rows = table(text, "Table 1")
    over_splits = "91.2 ± 12.5 over 2 seeds (1.5 of 4), ± 1.0 over 2 splits"
    full = rows["Full HAN: spatial cube + temporal cube"]
    assert full[:-1] == ["50.0 ± 12.5 over 2 seeds (1.5 of 4)", over_splits, "92.7", "missing", "64.3"]
    assert table(text, "Table 2")["HAN: full HAN (spatial CNN cube + temporal CNN cube)"] == full
    alone = rows["HAN without attention (1): both cubes, no attention"]
    assert alone[0] == "25.0 (1 / 4)", "a row with one seed looks as it always did"
    above = text.split("## Table 1", 1)[1].split("\n|", 1)[0]
    assert "± the standard deviation over the seeds" in above
    assert "± the standard deviation over the splits" in above


def test_an_ensemble_has_a_row_below_its_models_and_no_figure_of_the_papers(two_seeds):
    run()
    for heading, line in (("Table 1", "Full HAN: spatial cube + temporal cube"), ("Table 2", "HAN")):
        rows = table(markdown(two_seeds), heading)
        title = f"{line}: full HAN (spatial CNN cube + temporal CNN cube), ensemble of its seeds"
        assert rows[title] == ["75.0 (3 / 4)", "missing", "-", "missing", "-", "nothing chosen"]
        titles = list(rows)
        assert titles[titles.index(title) - 1].startswith(line), "below its models"
        assert sum("ensemble" in title for title in titles) == 1


def test_of_several_seeds_curves_are_means_and_figure_4_is_of_the_first(two_seeds):
    run()
    params = load_params("params.yaml")
    runs = [two_seeds / f"plots/toy/train/han-1-seed{seed}" for seed in SEEDS]
    assert report_pictures._mean_curve(runs) == pytest.approx({n: 10 / n for n in range(1, 6)}, rel=1e-5)
    drawn = [report_pictures.curves(params, Paths.of(params))]
    edit(two_seeds, lambda params: params["train"].update(seeds=[7]))
    params = load_params("params.yaml")
    drawn.append(report_pictures.curves(params, Paths.of(params)))
    assert drawn[0] != drawn[1]
    before = (two_seeds / "report/toy/attention-1.jpg").read_bytes()
    text = markdown(two_seeds)
    assert "trained with seed 7." in text
    assert "once for each of the 2 seeds" in text
    assert "all 2 seeds are counted together" in text
    run()
    assert (two_seeds / "report/toy/attention-1.jpg").read_bytes() == before
    edit(two_seeds, lambda params: params["train"].update(seeds=[3]))
    run()
    assert (two_seeds / "report/toy/attention-1.jpg").read_bytes() != before
    assert "trained with seed" not in markdown(two_seeds)


def test_no_pictures_where_none_are_asked_for(project):
    edit(project, lambda params: params["report"].update(clips=0))
    run()
    assert "figure 4" not in markdown(project)
    assert not list((project / "report/toy").glob("*.jpg"))


def test_pictures_of_an_earlier_report_go(project):
    run()
    edit(project, lambda params: params["report"].update(clips=1))
    run()
    assert sorted(p.name for p in (project / "report/toy").glob("*.jpg")) == ["attention-1.jpg"]


def test_the_page_and_its_twin_say_the_same(project):
    run()
    page = (project / "report/toy/report.html").read_text(encoding="utf-8")
    text = markdown(project)
    assert [h.replace("&#x27;", "'") for h in re.findall(r"<h2[^>]*>(.*?)</h2>", page)] == [
        h.replace("\\", "") for h in re.findall(r"^## (.*)$", text, re.MULTILINE)
    ]
    page = page[: page.index("<script>")]
    for figure in ("50.0 (2 / 4)", "missing", "92.7", "12.5 (0 / 4)"):
        assert page.count(figure) == text.count(figure) > 0


def test_params_and_versions_are_told_and_how_the_work_was_spread_is_not(project):
    edit(project, lambda params: params["train"].update(lstm_size=77))
    run()
    text = markdown(project)
    assert "lstm_size: 77" in text
    assert "| torch |" in text
    assert "workers:" not in text


def figures(path, change):
    found = json.loads(path.read_text(encoding="utf-8"))
    change(found)
    path.write_text(json.dumps(found), encoding="utf-8")


def headline(project):
    above = markdown(project).split("\n## ", 1)[0]
    lines = [line[2:].split(": ", 1) for line in above.splitlines() if line.startswith("- ")]
    return {what: said.replace("\\", "") for what, said in lines}


def test_the_headline_has_the_best_row_han_and_chance(project):
    run()
    assert headline(project) == {
        "Best row": "100.0 %. Logistic regression, both streams' cubes averaged over the regions: 4 of 4 test clips",
        "HAN": "50.0 %. Full HAN (spatial CNN cube + temporal CNN cube): 2 of 4 test clips",
        "Chance": "50.0 %. guessing among 2 classes",
    }
    figures(project / "metrics/toy/evaluate.json", lambda found: found["han"]["top1"].update(mean=1.5))
    run()
    then = "2 of 4 test clips. Next: Logistic regression, both streams' cubes averaged over the regions, 100.0 %"
    assert headline(project)["Best row"].endswith(then)
    path = project / "data/toy/clips.csv"
    clips = read_clips(path)
    write_clips(replace(clips, clips=clips.clips[:-1]), path)
    figures(project / "metrics/toy/evaluate.json", lambda found: found.pop("han"))
    edit(project, lambda params: params["report"].update(tuned=["linear"]))
    run()
    assert headline(project)["HAN"] == "missing. not among the models that were run"
    assert headline(project)["Best row"].endswith("test clips; settings chosen on the clips it is scored on")
    assert headline(project)["Chance"].endswith("always the commonest class of the test clips: 66.7 %")


@pytest.mark.parametrize("splits", [1, 2, 10])
def test_a_spread_is_told_of_several_splits_only(project, splits):
    values = {f"split_{n + 1}": 0.5 for n in range(splits)}
    for name in ("toy", "ucf101"):
        path = project / f"metrics/{name}/evaluate.json"
        figures(path, lambda found: [row.update(top1={"mean": 0.5, "std": 0.02, **values}) for row in found.values()])
    run()
    full = table(markdown(project), "Table 1")["Full HAN: spatial cube + temporal cube"][0]
    assert full == ("50.0 (2 / 4)" if splits == 1 else "50.0 ± 2.0 (2 / 4)")
    assert ("deviation over the splits" in markdown(project)) == (splits > 1)


def test_every_test_clip_stands_there_with_what_each_model_says_of_it(project):
    run()
    rows = table(markdown(project).replace("\\", ""), "Predictions")
    assert rows[""] == ["Class", "Predicted", "rank of its class", "top 5, %"]
    assert list(rows)[1:] == [name for name in CLIPS if not name.endswith("_0")]
    found = read_predictions(project / "data/toy/predictions/han-1-seed1/han.csv", CLASSES)
    del rows[""]
    for clip, (actual, predicted, rank, top) in rows.items():
        chances = found[f"{actual}/{clip}"]
        assert predicted == CLASSES[chances.argmax()]
        assert rank == ("1" if predicted == actual else "2")
        assert top == ", ".join(f"{CLASSES[n]} {100 * chances[n]:.0f}" for n in np.argsort(-chances))


def test_pairs_are_listed_that_are_confused_most_and_bars_say_what_a_class_is_taken_for(project):
    run()
    text = markdown(project).replace("\\", "")
    pairs = text.split("Most confused by han:", 1)[1].split("## ", 1)[0]
    assert "| kick | hand_shake | 2 | 100 |" in pairs
    assert table(text, "Accuracy by class (%)")["kick"] == ["50", "1", "2", "hand_shake (2)"]


def test_where_the_page_has_little_room_clips_are_smaller_then_fewer_and_it_says_so(project):
    run()
    page = project / "report/toy/report.html"
    whole = page.stat().st_size
    size = {path.name: path.stat().st_size for path in page.parent.glob("attention-*")}
    assert len(size) == 4
    assert "megabytes (report.megabytes)" not in markdown(project)
    bare = whole - sum(size.values()) * 4 / 3
    for share, said in ((0.8, "are smaller or do not play"), (0.02, "only 0 of 2 clips are shown")):
        bound = bare + share * (whole - bare)
        edit(project, lambda params: params["report"].update(megabytes=bound / 1e6))  # noqa: B023
        run()
        assert said in markdown(project)
        assert page.stat().st_size < bound + 2000, "the sentence that says so, and anchors"
    edit(project, lambda params: params["report"].update(megabytes=0.001))
    run()
    assert "Not all predictions of han, no_attention are here" in markdown(project).replace("\\", "")
    assert "kick_1 | kick |" not in markdown(project).replace("\\", "")
    assert 'href="#predictions-han"' not in page.read_text(encoding="utf-8"), "cells lead nowhere"


def test_of_a_map_that_says_nothing_no_region_is_circled_and_the_spread_is_told(project):
    run()
    assert re.search(r"The maps of HAN are spread over \d+ to 196 of 196 regions\.", markdown(project))
    path = project / "data/toy/predictions/han-1-seed1/han.attention.safetensors"
    whole = read_attention(path)

    def green():
        red_green_blue = cv2.imread(str(project / "report/toy/attention-1.jpg"))[128:256, :, ::-1].astype(int)
        return (red_green_blue[..., 1] - red_green_blue[..., [0, 2]].max(axis=2) > 80).sum()

    assert green() > 10
    nearly = np.full((len(whole.maps), *whole.maps["kick/kick_1"].shape), 1 / 196, np.float32)
    nearly[..., 7] *= 1.5
    nearly /= nearly.sum(axis=-1, keepdims=True)
    write_attention(path, list(whole.maps), nearly, np.stack(list(whole.frames.values())))
    run()
    assert green() == 0
    assert "spread over 196 of 196 regions" in markdown(project)


def test_running_again_gives_the_same_bytes_and_other_workers_too(project):
    def hashes():
        files = sorted(path for path in (project / "report").rglob("*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    run()
    before = hashes()
    assert {"report.html", "report.md", "curve-loss.svg", "confusion-han.svg", "attention-1.mp4"} <= set(before)
    edit(project, lambda params: params["run"].update(workers=7))
    run()
    assert hashes() == before


def test_missing_clips_are_told(project):
    path = project / "metrics/toy/evaluate.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["han"]["missing"] = 3
    path.write_text(json.dumps(found), encoding="utf-8")
    run()
    assert "count as wrong: 3." in markdown(project)


def test_a_clip_of_several_splits_is_drawn_for_the_first_that_tests_it(project):
    params = load_params("params.yaml")
    clips = read_clips(project / "data/toy/clips.csv")
    chosen = choose_clips(params.model_copy(update={"splits": (1,)}), clips)
    assert [(split, clip.name) for split, clip in chosen] == [(1, "hand_shake_1"), (1, "kick_2")]


@pytest.mark.parametrize("gone", ["metrics/toy", "plots/toy/per_class.csv", "plots/toy/train/han-1-seed1"])
def test_what_is_missing_is_said_in_plain_words(project, gone):
    (project / gone).rename(project / "hidden")
    assert "run the stages before report first" in run(expected=1)
