"""Flow files without the camera's motion."""

import numpy as np
import pytest

from han_core.camera.compensation import steady_field
from han_core.camera.motion import mean_shift
from han_core.camera.steady import steady_images, write_steady_flow
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.flow.flowfile import encode_field, read_flow_levels
from han_core.flow.levels import FlowFormat, dequantize
from han_core.images.codec import decode_grey
from tests.han_core.camera.test_motion import HEIGHT, WIDTH, field_of, turning

FORM = FlowFormat(bound=20.0, codec="png")
LEVEL = 40 / 255
ACTOR = slice(40, 70), slice(60, 100)


def filmed(shift: tuple = (4.0, -3.0), actor: tuple = (6.0, 1.0), **camera) -> np.ndarray:
    """What a camera that turns and shifts sees of an actor in front of a wall, (2, HEIGHT, WIDTH) float32."""
    flow = field_of(turning(shift=shift, **camera)).astype(np.float32)
    flow[0][ACTOR] += actor[0]
    flow[1][ACTOR] += actor[1]
    return flow


def flow_file(path, fields, form=FORM):
    with ClipFileWriter(path, kind="flow", clip="c", fingerprint="ab" * 32) as writer:
        x, y = writer.images("x"), writer.images("y")
        for number, field in enumerate(fields):
            x_image, y_image, _ = encode_field(number, field, form)
            x.append(x_image)
            y.append(y_image)
        height, width = fields[0].shape[1:]
        writer.attributes |= {"width": width, "height": height, "count": len(fields), "bound": form.bound}
        writer.attributes |= {"rounding": form.rounding, "codec": form.codec, "quality": form.quality, "clipped": 0.0}
        writer.attributes |= {"backend": "test"}
    return path


def test_the_wall_stands_still_and_the_actor_moves_on_as_he_did():
    steady = steady_field(filmed(angle=0, zoom=1, tilt=(0, 0)), "homography")
    wall = np.ones((HEIGHT, WIDTH), bool)
    wall[ACTOR] = False
    assert np.abs(steady[:, wall]).max() < 0.01
    np.testing.assert_allclose(steady[:, *ACTOR].mean(axis=(1, 2)), [6, 1], atol=0.01)


def test_the_mean_takes_a_shift_out_and_no_turn():
    shifted = filmed(angle=0, zoom=1, tilt=(0, 0), actor=(0, 0))
    assert np.abs(steady_field(shifted, "mean")).max() < 1e-5
    turned = filmed(angle=3, actor=(0, 0))
    np.testing.assert_allclose(
        steady_field(turned, "mean"), turned - turned.mean(axis=(1, 2))[:, None, None], atol=1e-4
    )
    assert np.abs(steady_field(turned, "mean")).max() > 1
    assert np.abs(steady_field(turned, "homography")).max() < 0.05


def test_the_mean_shift_is_a_translation():
    flow = np.random.default_rng(0).normal(2, 1, (2, 9, 12)).astype(np.float32)
    motion = mean_shift(flow)
    np.testing.assert_allclose(motion[:2, 2], flow.mean(axis=(1, 2)), rtol=1e-6)
    motion[:2, 2] = 0
    np.testing.assert_array_equal(motion, np.eye(3))


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="mean or homography, not 'none'"):
        steady_field(filmed(), "none")


@pytest.mark.parametrize("camera", ["mean", "homography"])
def test_a_file_of_the_same_form_comes_out(tmp_path, camera):
    fields = [filmed(shift=(3, 2)), filmed(shift=(-12, 9), actor=(-9, 0)), np.zeros((2, HEIGHT, WIDTH), np.float32)]
    source, path = flow_file(tmp_path / "flow.h5", fields), tmp_path / "steady.h5"
    assert write_steady_flow(source, path, clip="c", fingerprint="cd" * 32, camera=camera) == 3
    levels = read_flow_levels(path)
    for before, after, exact in zip(read_flow_levels(source), levels, fields, strict=True):
        wanted = steady_field(exact, camera)
        # Quantised twice, and the homography is fitted to what was quantised once.
        assert np.abs(dequantize(after, FORM.bound) - wanted).mean() < LEVEL
        images = steady_images(0, before, FORM, camera)
        np.testing.assert_array_equal(after, [decode_grey(image) for image in images[:2]], "as a single field is made")
    with ClipFile(source) as old, ClipFile(path) as new:
        assert new.kind == "flow"
        assert {**old.attributes, "camera": camera, "clipped": new.attributes["clipped"]} == new.attributes
        assert 0 <= new.attributes["clipped"] < 0.2
    assert (levels[2] == 128).all(), "what stood still stands still"


def test_what_lies_beyond_the_bound_is_counted(tmp_path):
    fields = [np.full((2, HEIGHT, WIDTH), -19.0, np.float32)]
    fields[0][0, :, : WIDTH // 4] = 19  # the mean is -9.5, so a quarter moves by 28.5 in the end
    path = tmp_path / "steady.h5"
    write_steady_flow(flow_file(tmp_path / "flow.h5", fields), path, clip="c", fingerprint="cd" * 32, camera="mean")
    with ClipFile(path) as file:
        assert file.attributes["clipped"] == pytest.approx(0.25)


def test_a_file_that_does_not_say_its_form_is_told(tmp_path):
    with ClipFileWriter(tmp_path / "flow.h5", kind="flow", clip="c", fingerprint="ab" * 32) as writer:
        writer.images("x").append(encode_field(0, filmed(), FORM)[0])
    with pytest.raises(ClipFileError, match="does not say how its flow is stored"):
        write_steady_flow(tmp_path / "flow.h5", tmp_path / "steady.h5", clip="c", fingerprint="cd" * 32, camera="mean")
