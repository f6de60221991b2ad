"""HAN on a net other than VGG-16, through the stages: what is made, what is left out, what is refused."""

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torchvision.models import get_model

from han_core.baselines.two_stream.scorefile import NOT_SCORED
from han_core.cli.main import main as han
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import read_trailer
from han_core.clips import read_clips
from han_core.cubes.cubefile import read_cube
from han_core.cubes.store import CubeStore
from han_core.han.model_file import load_model
from han_core.nets.clip_inputs import read_clip_frames
from han_core.nets.sealed_net import read_metadata
from han_core.predictions import attention_file, probabilities_file, read_attention, read_predictions
from pipeline import classify, cubes, decode, finetune, flow, prepare, train
from tests.checkout import CLASSES, write_video

NET, LAYER, SIZE = "resnet18", "layer3", 64
MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.3, 0.2)
STREAMS = ("spatial", "temporal")


def save_weights(path, mean=MEAN, **changes):
    torch.manual_seed(1)
    tensors = {name: value.contiguous() for name, value in get_model(NET, weights=None).state_dict().items()}
    said = {"mean": json.dumps(mean), "std": json.dumps(STD), "size": str(SIZE)}
    save_file(tensors, path, said | changes)
    return path


def use(params, weights):
    params["cubes"].update(net=NET, layer=LAYER, frames=2, precision="float32")
    for stream in STREAMS:
        params["finetune"][stream] = {"weights": str(weights), "iterations": 0}


@pytest.fixture
def project(nets_project, tmp_path):
    use(nets_project.params, save_weights(tmp_path / "weights.safetensors"))
    return nets_project


def test_the_net_s_file_says_what_it_is(project):
    for stream, stack in (("spatial", "0"), ("temporal", "2")):
        project.ok("finetune", stream)
        metadata = read_metadata(project.net(stream))
        assert (metadata["architecture"], metadata["stack"], metadata["stream"]) == (
            f"torchvision {NET}",
            stack,
            stream,
        )
        assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == (list(MEAN), list(STD))
        assert (metadata["size"], metadata["input"]) == (str(SIZE), "torchvision")
        assert not {"classes", "classifier"} & metadata.keys(), "its last layer knows no class of the dataset"
    given, taken = (load_file(project.folder / "weights.safetensors"), load_file(project.net("temporal")))
    assert torch.equal(taken["layer4.1.conv2.weight"], given["layer4.1.conv2.weight"])
    assert torch.equal(taken["conv1.weight"], given["conv1.weight"].mean(1, keepdim=True).repeat(1, 4, 1, 1))
    project.ok("finetune", split=2)
    assert project.net(split=2).samefile(project.net()), "one net for all splits"


def test_cubes_are_those_of_torchvision_s_model_on_the_input_that_the_file_names(project):
    project.ok("finetune")
    assert "6 clips: 0 reused, 6 computed" in project.ok("cubes")
    path = project.clip_path("cubes/spatial-1", "b2")
    with ClipFile(path) as file:
        facts, fc = file.attributes, file.array("fc7")
    assert (facts["layer"], facts["input"], facts["net"]) == (
        LAYER,
        "torchvision",
        read_metadata(project.net())["sha256"],
    )
    model = get_model(NET, weights=None).eval()
    model.load_state_dict(load_file(project.net()))
    pixels = read_clip_frames(project.clip_path("frames", "b2"), 2).pixels
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    images = torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    images = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = model.layer3(model.layer2(model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images)))))))
        units = model.layer4(expected).mean((2, 3))
    cube = read_cube(path)
    assert cube.shape == (2, 256, 4, 4)
    np.testing.assert_allclose(cube, expected, rtol=2e-3, atol=2e-3 * float(expected.max()))
    np.testing.assert_allclose(fc, units, rtol=2e-3, atol=2e-3 * float(units.max()))


def test_another_input_makes_other_cubes(project):
    seen = []
    for mean in (MEAN, (0.3, 0.5, 0.7)):
        save_weights(project.folder / "weights.safetensors", mean)
        project.ok("finetune")
        assert "6 computed" in project.ok("cubes")
        path = project.clip_path("cubes/spatial-1", "a1")
        seen.append((read_trailer(path).fingerprint, read_cube(path)))
    assert seen[0][0] != seen[1][0]
    assert not np.array_equal(seen[0][1], seen[1][1])


def test_random_weights_are_the_seed_s(project):
    seen = set()
    for seed in (1, 2):
        project.params["seed"] = seed
        project.params["finetune"]["spatial"]["weights"] = "random"
        project.ok("finetune")
        metadata = read_metadata(project.net())
        seen.add(metadata["sha256"])
        assert (metadata["mean"], metadata["size"]) == ("[0.485, 0.456, 0.406]", "224")
    assert len(seen) == 2


def test_its_own_answers_are_left_out_with_the_reason(project):
    project.ok("finetune")
    project.ok("scores")
    said = (project.folder / "data/toy/scores/spatial-1" / NOT_SCORED).read_text()
    assert "it is a resnet18, and only a VGG-16 is scored (cubes.net)" in said


def test_what_cannot_be_is_refused_before_any_clip(project):
    project.ok("finetune")
    kept = project.params["cubes"]
    for change, words in (
        ({"layer": "layer5"}, "resnet18 has no module 'layer5'. Did you mean layer"),
        ({"layer": "fc"}, "fc of resnet18 gives 2 x 1000: no map"),
        (
            {"net": "resnet34"},
            "is a resnet18, but resnet34 is wanted; set cubes.net to resnet18, or run",
        ),
        ({"net": "vgg16", "layer": "conv5_3"}, "is a resnet18, but vgg16 is wanted"),
    ):
        project.params["cubes"] = kept | change
        assert words in project.refused("cubes")
        assert not (project.folder / "data/toy/cubes").exists()
    project.params["cubes"] = kept | {"net": "resnet81"}
    assert "has no classification model 'resnet81'; did you mean resnet18" in project.refused("finetune")
    project.params["cubes"] = kept
    save_weights(project.folder / "weights.safetensors", size="7")
    assert "`size` in its metadata must be a number of pixels" in project.refused("finetune")
    (project.folder / "weights.safetensors").unlink()
    assert "cannot be read" in project.refused("finetune")


def test_a_vgg16_is_no_other_net(nets_project):
    nets_project.ok("finetune")
    nets_project.params["cubes"].update(net=NET, layer=LAYER)
    assert "is a vgg16, but resnet18 is wanted" in nets_project.refused("cubes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["cubes"].update(layer="conv4_3"), "cubes.layer: must be conv5_3, pool4, pool5 where cubes.net is"),
        (lambda p: p["cubes"].update(net="../x"), "cubes.net: must be vgg16 or the name of a classification model"),
        (lambda p: p["cubes"].update(net=""), "cubes.net: must be vgg16 or"),
        (lambda p: p["cubes"].update(net=NET, layer="a b"), "cubes.layer: must be the name of a layer, or of a module"),
        (lambda p: p["cubes"].update(net=NET, layer="layer4\n"), "cubes.layer: must be the name of a layer"),
        (
            lambda p: (p["cubes"].update(net=NET, layer=LAYER), p["finetune"]["temporal"].update(iterations=1)),
            "finetune.temporal.iterations: must be 0, because cubes.net is resnet18 and only vgg16 is fine-tuned",
        ),
        (
            lambda p: (p["cubes"].update(net=NET, layer=LAYER), p["finetune"]["spatial"].update(input="caffe")),
            "finetune.spatial.input: must be auto or torchvision, because cubes.net is resnet18",
        ),
        (
            lambda p: (p["cubes"].update(net=NET, layer=LAYER), p["tdd"].update(splits=[1, 2])),
            "tdd.splits: must be [], because cubes.net is resnet18",
        ),
        (
            lambda p: (p["cubes"].update(net=NET, layer=LAYER), p["tdd_cubes"].update(splits=[1, 2])),
            "tdd_cubes.splits: must be [], because maps of cubes.net resnet18 may hold negative numbers",
        ),
    ],
)
def test_params_that_cannot_be_are_refused(change, words, nets_project):
    change(nets_project.params)
    result = nets_project.run("finetune")
    assert (result.exit_code, words in result.output) == (1, True), result.output


def test_nets_of_another_dataset_may_have_been_trained_by_other_params(nets_project):
    """Of a recipe that is not used, the iterations do not matter."""
    nets_project.params["cubes"].update(net=NET, layer=LAYER, nets="other")
    nets_project.params["finetune"].update(splits=[])
    nets_project.params["finetune"]["spatial"]["iterations"] = 9
    assert "is missing; make it with stage finetune of dataset other" in nets_project.refused("cubes")


@pytest.mark.parametrize("stream", STREAMS)
def test_dvc_makes_net_and_cubes_again_for_another_net(stream, repository):
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert "cubes.net" in stages[f"finetune-{stream}"]["params"]
    assert {"cubes", "cubes.net"} & set(stages[f"cubes-{stream}"]["params"])


@pytest.fixture(scope="module")
def trained(repository, tmp_path_factory):
    """Six videos through all stages up to classify."""
    folder = tmp_path_factory.mktemp("other")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    params |= {"synthetic": None, "models": ["han", "fc_features"], "stack": 4}
    params["dataset"].update(name="tiny", kind="folder", root="videos", generate=[])
    params["dataset"]["folder"].update(split_by="fraction", test_share=0.4, group_pattern=r"g\d")
    params["run"]["workers"] = 1
    params["flow"].update(size=[48, 36])
    params["flow"]["tvl1"].update(scales=2, warps=2, iterations=20)
    params["cubes"]["nets"] = "tiny"
    params["train"].update(lstm_size=8, epochs=3)
    use(params, save_weights(folder / "weights.safetensors"))
    for class_name, speed in CLASSES.items():
        for n in range(3):
            write_video(folder / "videos" / class_name / f"{class_name}_g{n}.avi", speed, n)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    models = [("--model", name, "--split", "1", "--seed", "1") for name in params["models"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HAN_CACHE", raising=False)
        for stage, *arguments in (
            (prepare,),
            (decode,),
            (flow,),
            *((stage, "--stream", stream, "--split", "1") for stream in STREAMS for stage in (finetune, cubes)),
            *((train, *model) for model in models),
            *((classify, *model) for model in models),
        ):
            result = CliRunner().invoke(stage.main, arguments)
            assert result.exit_code == 0, (stage, result.output, result.exception)
    return folder


def test_han_learns_from_maps_of_any_size(trained):
    folders = {stream: trained / f"data/tiny/cubes/{stream}-1" for stream in STREAMS}
    clips = read_clips(trained / "data/tiny/clips.csv").select(1, "test")
    assert CubeStore(folders, clips).shapes == dict.fromkeys(STREAMS, (2, 256, 16))
    config = load_model(trained / "models/tiny/han/han-1-seed1.safetensors").model.config
    assert (config.channels, config.regions) == (256, 16)
    maps = read_attention(attention_file(trained / "data/tiny/predictions/han-1-seed1", "han")).maps
    assert {values.shape for values in maps.values()} == {(2, 16)}
    config = load_model(trained / "models/tiny/han/fc_features-1-seed1.safetensors").model.config
    assert (config.channels, config.regions) == (512, 1)


@pytest.mark.parametrize("row", ["han", "fc_features"])
def test_predict_says_what_the_pipeline_says(row, trained, monkeypatch):
    monkeypatch.chdir(trained)
    clips = read_clips(trained / "data/tiny/clips.csv").select(1, "test")
    classes = tuple(sorted(CLASSES))
    expected = read_predictions(probabilities_file(trained / f"data/tiny/predictions/{row}-1-seed1", row), classes)
    videos = [str(trained / "videos" / clip.path) for clip in clips]
    arguments = ["predict", "--device", "cpu", "--model", f"models/tiny/han/{row}-1-seed1.safetensors", *videos]
    result = CliRunner().invoke(han, [*arguments, *([] if row == "han" else ["--no-video"])])
    assert result.exit_code == 0, (result.output, result.exception)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == len(clips) > 1
    for line, clip in zip(found, clips, strict=True):
        chances = {entry["label"]: entry["probability"] for entry in line["top"]}
        assert [chances[name] for name in classes] == pytest.approx(expected[clip.key].tolist(), abs=1e-5)
        assert ("annotated" in line) == (row == "han")
    assert np.ptp([values[0] for values in expected.values()]) > 1e-4, "clips that all look alike would prove nothing"
