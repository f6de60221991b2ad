import struct

import numpy as np
import pytest

from han_core.figures.flow import flow_picture
from han_core.flow.flo import read_flo, write_flo


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)


def test_flo_files_hold_what_was_written(flow, tmp_path):
    write_flo(tmp_path / "a.flo", flow)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), flow)


def test_flo_files_have_the_published_layout(flow, tmp_path):
    """Tag 202021.25, width, height, then x and y of each pixel, row by row, little endian."""
    write_flo(tmp_path / "a.flo", flow)
    content = (tmp_path / "a.flo").read_bytes()
    assert struct.unpack("<fii", content[:12]) == (202021.25, 7, 5)
    assert np.array_equal(np.frombuffer(content[12:], "<f4").reshape(5, 7, 2), flow.transpose(1, 2, 0))


def test_middlebury_truth_is_read(shared_data):
    truth = read_flo(shared_data / "middlebury/RubberWhale/flow10.flo")
    assert truth.shape == (2, 388, 584)
    known = np.abs(truth) < 1e9
    assert not known.all()
    assert np.abs(truth[known]).max() < 10


@pytest.mark.parametrize("content", [b"", b"not flow", struct.pack("<fii", 202021.25, 7, 5) + b"\0" * 8])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.flo: is not a complete \.flo file"):
        read_flo(tmp_path / "a.flo")


def test_missing_files_are_told(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_flo(tmp_path / "a.flo")


def test_what_cannot_be_written_is_told(flow, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.flo"):
        write_flo(tmp_path / "a.flow", flow)
    with pytest.raises(ValueError, match="does its folder exist"):
        write_flo(tmp_path / "nowhere" / "a.flo", flow)
    with pytest.raises(ValueError, match=r"shape \(2, H, W\)"):
        write_flo(tmp_path / "a.flo", flow.transpose(1, 2, 0))


class TestPicture:
    def test_colours_are_torchvisions(self):
        import torch
        from torchvision.utils import flow_to_image

        flow = np.random.default_rng(1).normal(size=(3, 2, 20, 30)).astype(np.float32)
        expected = flow_to_image(torch.from_numpy(flow)).permute(0, 2, 3, 1).numpy().astype(int)
        differences = np.abs(flow_picture(flow) - expected)
        assert differences.max() <= 1, "rounding"
        assert differences.mean() < 0.01

    def test_no_motion_is_white(self):
        assert (flow_picture(np.zeros((2, 4, 4))) == 255).all()
        assert (flow_picture(np.zeros((2, 4, 4)), largest=20) == 255).all()

    def test_colour_grows_with_length_up_to_the_largest(self):
        flow = np.zeros((2, 1, 4), np.float32)
        flow[0, 0] = [2, 5, 10, 40]
        picture = flow_picture(flow, largest=10)[0].astype(int)
        strength = picture.max(1) - picture.min(1)
        assert 0 < strength[0] < strength[1] < strength[2]
        assert (picture[2] == picture[3]).all()

    def test_the_length_of_other_frames_does_not_matter_when_the_largest_is_given(self):
        flow = np.zeros((2, 2, 3, 3), np.float32)
        flow[0, 0], flow[1, 0] = 3, 9
        both = flow_picture(flow, largest=10)
        assert both.shape == (2, 3, 3, 3)
        assert np.array_equal(both[0], flow_picture(flow[0], largest=10))

    def test_directions_differ_in_hue_and_opposite_ones_most(self):
        right, down, left = (
            flow_picture(np.full((2, 1, 1), 0.0) + np.reshape(d, (2, 1, 1)), largest=1)[0, 0].astype(int)
            for d in ([1, 0], [0, 1], [-1, 0])
        )
        assert np.abs(right - left).sum() > np.abs(right - down).sum() > 100

    def test_default_scale_is_the_longest_vector(self):
        flow = np.zeros((2, 1, 2), np.float32)
        flow[1, 0] = [1, 4]
        assert np.array_equal(flow_picture(flow), flow_picture(flow, largest=4))

    @pytest.mark.parametrize(
        ("flow", "largest", "message"),
        [
            (np.zeros((3, 4, 4)), None, "must have the shape"),
            (np.full((2, 4, 4), np.nan), None, "finite"),
            (np.zeros((2, 4, 4)), 0, "largest must be above 0"),
        ],
    )
    def test_refusals(self, flow, largest, message):
        with pytest.raises(ValueError, match=message):
            flow_picture(flow, largest)
