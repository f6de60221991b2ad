"""Attention scores of models with known weights on synthetic clips with made-up cubes."""

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip, ClipTable, write_clips
from han_core.cubes.cubefile import read_cube, write_cube
from han_core.datasets.synthetic.generate import CLASSES, actor_boxes, clip_name, generate_synthetic, read_boxes
from han_core.evaluation.attention_quality import map_quality, shuffled_quality
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN, load_model, save_model
from pipeline import classify
from pipeline.evaluate import __main__ as evaluate
from pipeline.evaluate.attention import attention_quality
from pipeline.params import load_params, synthetic_spec
from pipeline.predictions import attending_rows
from tests.only_han import only_han

PICKED = [0, 5, 11]
SIZE = (80, 64)


@pytest.fixture
def project(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = only_han(yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8")))
    params["models"] = ["han", "no_attention"]
    params["synthetic"].update(groups=2, clips_per_group=1, frames=12, width=SIZE[0], height=SIZE[1])
    params["evaluate"]["baselines"] = []
    params["scores"]["enabled"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    clips = []
    rng = np.random.default_rng(0)
    for label in range(len(CLASSES)):
        group = 1 + label % 2
        name = clip_name(CLASSES[label], group, 1)
        clips.append(Clip(name, f"{name}.avi", CLASSES[label], label, f"g{group:02d}", {1: "test"}))
        for stream in ("spatial", "temporal"):
            path = tmp_path / f"data/synthetic/cubes/{stream}-1" / CLASSES[label] / f"{name}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with ClipFileWriter(path, kind="cubes", clip=name, fingerprint="f" * 64) as file:
                write_cube(file, rng.random((len(PICKED), 6, 4, 4)).astype(np.float16))
                file.array("frames", np.array(PICKED, np.int32))
    write_clips(ClipTable(tuple(clips), CLASSES, (1,)), tmp_path / "data/synthetic/clips.csv")
    torch.manual_seed(0)
    for name, attention, regions in (("han", "location", 16), ("no_attention", "uniform", 1)):
        config = HANConfig(("spatial", "temporal"), 8, 6, regions, attention=attention, lstm_size=4, skip=2)
        model = HAN(config).eval()
        if attention == "location":
            model.attention.regions.weight.data *= 20  # maps that are far from uniform
        save_model(
            TrainedHAN(model, name, CLASSES, "cubes"), tmp_path / f"models/synthetic/han/{name}-1-seed1.safetensors"
        )
        result = CliRunner().invoke(classify.main, ["--model", name, "--split", "1", "--seed", "1"])
        assert result.exit_code == 0, result.output
    return load_params(tmp_path / "params.yaml"), ClipTable(tuple(clips), CLASSES, (1,)), tmp_path


def maps_of(folder, clip):
    """The maps, by another way than the stage's: the model run on arrays read by hand."""
    cubes = {}
    for stream in ("spatial", "temporal"):
        cube = read_cube(folder / f"data/synthetic/cubes/{stream}-1" / clip.class_name / f"{clip.name}.h5")
        cubes[stream] = torch.from_numpy(cube.reshape(1, len(PICKED), 6, 16))
    with torch.no_grad():
        return load_model(folder / "models/synthetic/han/han-1-seed1.safetensors").model(cubes).attention[0].numpy()


def test_boxes_without_the_files_are_those_in_the_files(project, tmp_path):
    params, table, _ = project
    spec = synthetic_spec(params)
    generate_synthetic(tmp_path / "raw", spec)
    for clip in table.clips:
        np.testing.assert_array_equal(actor_boxes(spec, clip.name), read_boxes(tmp_path / "raw", clip.name))
    with pytest.raises(ValueError, match="not the name of a synthetic clip"):
        actor_boxes(spec, "somewhere")


def test_each_map_is_scored_against_the_box_of_its_frame(project):
    params, table, folder = project
    found = attention_quality(params, table)
    boxes = {clip.name: actor_boxes(synthetic_spec(params), clip.name)[PICKED] for clip in table.clips}
    expected = [map_quality(maps_of(folder, clip), boxes[clip.name], SIZE) for clip in table.clips]
    shuffled = [shuffled_quality(maps_of(folder, clip), boxes[clip.name], SIZE) for clip in table.clips]
    assert found["han"]["clips"] == 8
    for figure in ("mass", "pointing"):
        assert found["han"][figure] == pytest.approx(np.mean([getattr(s, figure) for s in expected]), abs=1e-6)
        mean = np.mean([getattr(s, figure) for s in shuffled])
        assert found["han"]["shuffled"][figure] == pytest.approx(mean, abs=1e-6)
    assert found["han"]["mass"] != pytest.approx(found["han"]["shuffled"]["mass"], abs=1e-4)
    area = np.mean([b[:, 2] * b[:, 3] for b in boxes.values()]) / (SIZE[0] * SIZE[1])
    assert found["uniform"]["mass"] == pytest.approx(area)
    assert 1 < found["han"]["effective_regions"] < 16
    assert found["centre_prior"]["mass"] > 0


def test_a_model_without_maps_has_no_scores(project):
    params, table, _ = project
    assert [row.name for row in attending_rows(params)] == ["han"]
    assert set(attention_quality(params, table)) == {"han", "uniform", "centre_prior"}


def test_the_stage_writes_them_as_metrics(project):
    _, _, folder = project
    result = CliRunner().invoke(evaluate.main, [])
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "metrics/synthetic/attention.json").read_text(encoding="utf-8"))
    assert set(written["han"]) == {"mass", "pointing", "shuffled", "effective_regions", "clips"}
    assert (folder / "metrics/synthetic/evaluate.json").is_file()
