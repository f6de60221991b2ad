"""HAN from Python in a line."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import han_core as han
from han_core.clipfile.trailer import ClipFileError
from han_core.devices import DeviceError
from han_core.errors import HanError
from han_core.flow.tvl1.solver import tvl1_flow
from han_core.nets.net_file import write_net
from han_core.nets.vgg16 import VGG16
from han_core.video.decode import read_video
from tests.clip_samples import cube, write_cubes_file
from tests.make_videos import encode, make_video


@pytest.fixture
def video(tmp_path):
    make_video(tmp_path / "clip.avi", 6)
    return tmp_path / "clip.avi"


def test_all_that_is_offered_is_there_and_documented():
    offered = ("Label", "Model", "extract", "flow", "frames", "load_model", "open_store")
    assert set(offered) <= set(dir(han))
    for name in offered:
        assert getattr(han, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'flows'"):
        _ = han.flows


def test_the_page_is_made_of_the_docstrings(repository):
    done = subprocess.run(
        [sys.executable, "-c", "import make_api; print(make_api.page(), end='')"],
        cwd=repository / "docs",
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    page = (repository / "docs/api.md").read_text(encoding="utf-8")
    assert done.stdout == page, "run: python docs/make_api.py"


def test_importing_it_imports_nothing_that_takes_long():
    code = (
        "import sys, han_core as han; dir(han)\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["", "import han_core.flow.levels", "from han_core.flow import levels"])
def test_flow_is_a_room_and_a_function_whatever_was_imported_first(first, video):
    code = (
        f"{first}\nimport han_core as han\nprint(han.flow({str(video)!r}).shape)\n"
        "import han_core.flow.levels as m\nprint(m.LEVELS)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(5, 2, 48, 64)", "255"]


@pytest.mark.parametrize("kind", [str, Path])
def test_frames_and_flow_are_those_of_the_pipeline_s_parts(video, kind):
    frames = han.frames(kind(video))
    np.testing.assert_array_equal(frames, np.stack(list(read_video(video))))
    done = []
    found = han.flow(kind(video), backend="cpu", progress=done.append)
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    np.testing.assert_allclose(found, tvl1_flow(grey[:-1], grey[1:], backend="cpu"), atol=1e-4)
    assert sum(done) == 5
    assert han.frames(video, short_side=32).shape == (6, 32, 43, 3)


def test_a_store_is_a_dataset_of_pairs_that_workers_share(tmp_path):
    for number, name in enumerate(("wave/a", "jump/b", "jump/a")):
        path = tmp_path / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        write_cubes_file(path)
        assert number < 3
    store = han.open_store(str(tmp_path))
    assert store.classes == ("jump", "wave")
    assert store.clips == ("jump/a", "jump/b", "wave/a")
    (cubes, labels), *more = DataLoader(store, batch_size=3, num_workers=1)
    assert not more
    assert labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(cubes[2].numpy(), cube())
    with pytest.raises(ClipFileError, match="holds no cube files"):
        han.open_store(tmp_path / "wave")


def test_what_cannot_be_done_is_told_plainly(tmp_path):
    make_video(tmp_path / "one.avi", 1)
    with pytest.raises(HanError, match="one frame; flow needs two"):
        han.flow(tmp_path / "one.avi")
    with pytest.raises(HanError, match="is missing; make it with stage finetune"):
        han.extract(tmp_path / "one.avi", tmp_path / "no.safetensors")
    with pytest.raises(HanError, match="holds no trained model"):
        han.load_model(workspace=tmp_path)


def test_a_temporal_net_sees_stacks_of_flow(video, tmp_path):
    torch.manual_seed(0)
    net = tmp_path / "temporal.safetensors"
    write_net(net, VGG16(classes=2, in_channels=4, fc_size=4), {"stream": "temporal", "input": "caffe"})
    found = han.extract(video, net, frames=2, stack=2, layer="pool5")
    assert (found.shape, found.dtype) == ((2, 512, 7, 7), np.float16)
    with pytest.raises(HanError, match="takes 4 channels, but the temporal stream has 20"):
        han.extract(video, net, frames=2)


@pytest.mark.parametrize("side", [0, -5, 2.5, True, "64"])
def test_a_side_of_no_pixels_is_refused(video, side):
    for function in (han.frames, han.flow):
        with pytest.raises(HanError, match="short_side must be a whole number of pixels, at least 1") as caught:
            function(video, short_side=side)
        assert isinstance(caught.value, ValueError)
    assert han.frames(video, short_side=np.int64(24)).shape == (6, 24, 32, 3)


def test_flow_of_frames_without_room_for_differences_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    narrow = encode(tmp_path / "narrow.mkv", rng.integers(0, 256, (3, 40, 2, 3), np.uint8), codec="ffv1", pixels="bgr0")
    assert han.frames(narrow).shape == (3, 40, 2, 3)
    with pytest.raises(HanError, match=r"narrow\.mkv: has frames of 2x40; flow needs 3 pixels per side"):
        han.flow(narrow)


@pytest.mark.parametrize("error", [HanError, ValueError])
def test_a_back_end_that_is_not_there_is_refused(video, error):
    with pytest.raises(error, match="fast"):
        han.flow(video, backend="fast")


@pytest.mark.parametrize("given", [{"frames": 0}, {"frames": 2.0}, {"stack": 0}, {"stack": -1}])
def test_numbers_of_frames_and_fields_are_refused_before_the_net_is_read(video, tmp_path, given):
    (name,) = given
    with pytest.raises(HanError, match=f"{name} must be a whole number of .*, at least 1, not") as caught:
        han.extract(video, tmp_path / "no.safetensors", **given)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(video, tmp_path, device):
    with pytest.raises(DeviceError, match=device):
        han.load_model(workspace=tmp_path, device=device)
    with pytest.raises(DeviceError, match=device):
        han.extract(video, tmp_path / "no.safetensors", device=device)


class StandIn:
    """A recogniser that labels nothing."""

    path = Path("han.safetensors")
    device = torch.device("cpu")
    closed = 0

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("window", [0, -1, 1, 2.5, True])
def test_windows_that_are_none_are_refused_as_on_the_command_line(video, window):
    with pytest.raises(HanError, match="window must be a whole number of frames, at least 2, not") as caught:
        han.Model(StandIn()).predict(video, window=window)
    assert isinstance(caught.value, ValueError)


def test_a_closed_model_says_so(video):
    recogniser = StandIn()
    with han.Model(recogniser) as model:
        pass
    with pytest.raises(HanError, match=r"han\.safetensors: the model is closed; load it again with load_model"):
        model.predict(video)
    assert recogniser.closed == 1
