"""Flow files without the camera's motion."""

import numpy as np
import pytest

from han_core.camera.compensation import Compensation
from han_core.camera.motion import mean_shift
from han_core.camera.steady import steady_images, write_steady_flow
from han_core.camera.steady_field import steady_field
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


def test_short_vectors_are_none_and_long_ones_stay():
    """v (1 - s^2 / |v|^2), one by one; s is a share of the shorter side, here HEIGHT."""
    flow = np.random.default_rng(3).normal(0, 2, (2, HEIGHT, WIDTH)).astype(np.float32)
    least = 1.5 / 100 * HEIGHT
    found = steady_field(flow, "still1.5")
    for y, x in np.ndindex(HEIGHT, WIDTH):
        u, v = (float(part) for part in flow[:, y, x])
        share = max(0.0, 1 - least**2 / (u * u + v * v))
        np.testing.assert_allclose(found[:, y, x], [share * u, share * v], atol=1e-5)
    short = np.hypot(*flow) < least
    assert 0.1 < short.mean() < 0.9
    assert (found[:, short] == 0).all()
    far = flow * 20
    long = np.hypot(*far) > 10 * least
    assert np.abs(steady_field(far, "still1.5") - far)[:, long].max() < 0.02 * np.abs(far[:, long]).max()
    lying = np.ascontiguousarray(flow.transpose(0, 2, 1))
    np.testing.assert_array_equal(steady_field(lying, "still1.5"), found.transpose(0, 2, 1), "the shorter side")


def test_the_camera_s_motion_goes_before_what_is_short_does():
    """The wall, which the camera moves by five pixels, is off by a little after that; the actor walks with the camera,
    so that he is hardly moved in the picture."""
    flow = filmed(angle=0, zoom=1, tilt=(0, 0), actor=(-4.0, 3.0))
    flow += np.random.default_rng(0).normal(0, 0.05, flow.shape).astype(np.float32)
    share = 100 / HEIGHT  # a pixel
    steady = steady_field(flow, f"homography-still{share:g}")
    wall = np.ones((HEIGHT, WIDTH), bool)
    wall[ACTOR] = False
    assert (steady[:, wall] == 0).all()
    assert (steady_field(flow, "homography")[:, wall] != 0).all()
    np.testing.assert_allclose(steady[:, *ACTOR].mean(axis=(1, 2)), [-4 * 24 / 25, 3 * 24 / 25], atol=0.05)
    assert (steady_field(flow, f"still{share:g}")[:, *ACTOR] == 0).all(), "with the camera's motion in, he stands still"


OTHER_NAMES = """steady homography- homographystill1 still still0 still0.50 still51 -still1 none-still1 mean-homography
still1-mean still-1 still1e1 still٣"""


@pytest.mark.parametrize("name", ["", *OTHER_NAMES.split()])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="must be none, mean, homography, still with a share"):
        Compensation.of(name)


def test_a_name_says_what_is_taken_out():
    assert Compensation.of("none") == Compensation(None, 0)
    assert Compensation.of("mean") == Compensation("mean", 0)
    assert Compensation.of("still0.25") == Compensation(None, 0.25)
    assert Compensation.of("homography-still2") == Compensation("homography", 2)
    flow = filmed()
    np.testing.assert_array_equal(steady_field(flow, "none"), flow)


@pytest.mark.parametrize("camera", ["mean", "homography", "homography-still0.5"])
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
