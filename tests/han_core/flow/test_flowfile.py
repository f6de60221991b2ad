"""Flow as levels and as files: the error bound of quantising, the streaming writer against a plain loop."""

import weakref

import cv2
import numpy as np
import pytest

from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError
from han_core.clipfile.writer import ClipFileWriter
from han_core.errors import ClipError
from han_core.flow.flowfile import read_flow_levels, write_flow
from han_core.flow.levels import FlowFormat, QuantizedFlow, dequantize, quantize
from han_core.images.codec import decode_grey, encode_image
from han_core.images.frames import read_frames, write_frames
from han_core.video.decode import read_video
from tests.make_videos import make_video, moving_frames


class TestQuantize:
    @pytest.mark.parametrize("bound", [0.5, 15, 20, 64.0])
    @pytest.mark.parametrize(("rounding", "levels"), [("nearest", 0.5), ("floor", 1.0)])
    def test_error_bound(self, bound, rounding, levels):
        flow = np.linspace(-bound, bound, 100_001, dtype=np.float32)
        error = flow - dequantize(quantize(flow, bound, rounding), bound)
        level = 2 * bound / 255
        assert np.abs(error).max() <= levels * level * (1 + 1e-4)
        assert np.abs(error).max() >= 0.99 * levels * level  # it is not better than that either
        if rounding == "floor":
            assert error.min() >= -1e-4 * level

    def test_landmarks(self):
        flow = np.array([-20, 20, -1000, 1000, 0, 0.0784, -0.0785, -0.0783], np.float32)
        assert quantize(flow, 20).tolist() == [0, 255, 0, 255, 128, 128, 127, 127]
        assert quantize(flow, 20, "floor").tolist() == [0, 255, 0, 255, 127, 127, 126, 127]

    def test_halves_go_to_the_even_level(self):
        flow = (np.arange(0.5, 8, dtype=np.float32) - 127.5) / 127.5  # levels 0.5, 1.5, ... at bound 1
        exact = np.isin(flow * np.float32(127.5) + np.float32(127.5), np.arange(0.5, 8))
        expected = np.array([0, 2, 2, 4, 4, 6, 6, 8])
        assert exact.sum() >= 3
        assert (quantize(flow, 1.0)[exact] == expected[exact]).all()

    def test_every_level_survives(self):
        levels = np.arange(256, dtype=np.uint8)
        assert (quantize(dequantize(levels, 20), 20) == levels).all()
        assert dequantize(levels, 20).dtype == np.float32

    @pytest.mark.parametrize("bad", [{"bound": 0}, {"bound": -1}, {"bound": 20, "rounding": "up"}])
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match=r"bound|rounding"):
            quantize(np.zeros(2), **bad)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_what_is_not_finite(self, value):
        with pytest.raises(ValueError, match="finite"):
            quantize(np.array([0, value]), 20)


class TestFrames:
    @pytest.fixture
    def path(self, tmp_path):
        make_video(tmp_path / "v.avi", 7)
        images = read_video(tmp_path / "v.avi", short_side=24)
        facts = {"fps": 25.0, "packets": 7}
        write_frames(images, tmp_path / "f.h5", clip="v", fingerprint="f", quality=95, attributes=lambda: facts)
        return tmp_path / "f.h5"

    def test_attributes(self, path):
        with ClipFile(path) as file:
            assert file.attributes == {
                "width": 32, "height": 24, "fps": 25.0, "count": 7, "packets": 7, "quality": 95
            }  # fmt: skip
            assert (file.kind, file.image_count("frames")) == ("frames", 7)

    def test_read(self, path):
        frames = read_frames(path)
        assert (frames.shape, frames.dtype) == ((7, 24, 32, 3), np.uint8)
        np.testing.assert_array_equal(read_frames(path, [6, 0, 0]), frames[[6, 0, 0]])
        assert read_frames(path, []).shape == (0, 24, 32, 3)
        grey = cv2.cvtColor(frames[3], cv2.COLOR_RGB2GRAY).astype(int)
        expected = [cv2.cvtColor(cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
                    for frame in moving_frames(7)]  # fmt: skip
        errors = [np.abs(grey - other).mean() for other in expected]
        assert errors[3] == min(errors) < 4
        with pytest.raises(IndexError):
            read_frames(path, [7])

    def test_grey_is_luma(self, path):
        with ClipFile(path) as file:
            grey = decode_grey(file.image_bytes("frames", 0))
            luma = cv2.cvtColor(file.image("frames", 0), cv2.COLOR_RGB2GRAY)
        assert np.abs(grey.astype(int) - luma).mean() < 1

    def test_decode_grey_refuses(self):
        with pytest.raises(ClipFileError, match="cannot be decoded"):
            decode_grey(b"no image")

    def test_quality_matters(self):
        image = moving_frames(1)[0]
        assert len(encode_image(image, "jpeg", 20)) < len(encode_image(image, "jpeg", 95))
        assert (cv2.imdecode(np.frombuffer(encode_image(image, "png", 1), np.uint8), 1) == image).all()
        with pytest.raises(ValueError, match="codec"):
            encode_image(image, "webp", 95)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A stand-in for the solver that keeps each pair apart from all others."""
    delta = second.astype(np.float32) - first
    return np.stack([delta, -delta / 2], axis=1)


class TestWriteFlow:
    @pytest.fixture
    def frames(self, tmp_path):
        make_video(tmp_path / "v.avi", 11)
        write_frames(
            read_video(tmp_path / "v.avi", short_side=None), tmp_path / "f.h5", clip="v", fingerprint="f", quality=95
        )
        return tmp_path / "f.h5"

    def write(self, frames, path, *, solver=difference, batch=4, threads=2, **form):
        return write_flow(
            frames,
            path,
            clip="v",
            fingerprint="e",
            solver=solver,
            form=FlowFormat(**({"bound": 20.0} | form)),
            batch=batch,
            threads=threads,
            attributes={"backend": "test"},
        )

    @pytest.mark.parametrize("batch", [1, 3, 10, 100])
    def test_equals_a_plain_loop(self, frames, tmp_path, batch):
        assert self.write(frames, tmp_path / "x.h5", batch=batch, codec="png") == 10
        with ClipFile(frames) as file:
            grey = np.stack([decode_grey(file.image_bytes("frames", i)) for i in range(11)])
        flow = difference(grey[:-1], grey[1:])
        np.testing.assert_array_equal(read_flow_levels(tmp_path / "x.h5"), quantize(flow, 20))
        np.testing.assert_array_equal(read_flow_levels(tmp_path / "x.h5", [9, 2]), quantize(flow, 20)[[9, 2]])
        with ClipFile(tmp_path / "x.h5") as file:
            attributes = file.attributes
        share = (np.abs(flow) > 20).any(axis=1).mean()
        assert 0.01 < share < 0.9
        assert attributes.pop("clipped") == pytest.approx(share)
        assert attributes == {
            "width": 64, "height": 48, "count": 10, "bound": 20.0, "rounding": "nearest", "codec": "png",
            "quality": 0, "backend": "test",
        }  # fmt: skip

    def test_batch_and_threads_do_not_change_a_byte(self, frames, tmp_path):
        for i, (batch, threads) in enumerate([(1, 1), (4, 3), (10, 1)]):
            self.write(frames, tmp_path / f"{i}.h5", batch=batch, threads=threads)
            verify_clip_file(tmp_path / f"{i}.h5")
        assert len({(tmp_path / f"{i}.h5").read_bytes() for i in range(3)}) == 1

    def test_size(self, frames, tmp_path):
        seen = []

        def solver(first, second):
            seen.append(first.shape)
            return difference(first, second)

        self.write(frames, tmp_path / "x.h5", solver=solver, size=(24, 20))
        assert seen == [(4, 20, 24), (4, 20, 24), (2, 20, 24)]
        assert read_flow_levels(tmp_path / "x.h5").shape == (10, 2, 20, 24)
        assert read_flow_levels(tmp_path / "x.h5", []).shape == (0, 2, 20, 24)

    def test_jpeg_is_close(self, frames, tmp_path):
        self.write(frames, tmp_path / "x.h5", solver=lambda a, b: np.full((len(a), 2, 48, 64), 3.0, np.float32))
        assert np.abs(dequantize(read_flow_levels(tmp_path / "x.h5"), 20) - 3).max() <= 20 / 255 + 1e-4

    def test_still_frames_give_level_128(self, frames, tmp_path):
        self.write(frames, tmp_path / "x.h5", solver=lambda a, b: np.zeros((len(a), 2, 48, 64), np.float32))
        assert (read_flow_levels(tmp_path / "x.h5") == 128).all()

    def test_few_frames_are_in_memory(self, tmp_path):
        """A clip of 600 frames: what is alive at once must not depend on its length."""
        image = encode_image(moving_frames(1)[0][..., 0], "jpeg", 95)
        with ClipFileWriter(tmp_path / "f.h5", kind="frames", clip="v", fingerprint="f") as writer:
            frames = writer.images("frames")
            for _ in range(601):
                frames.append(image)
        alive = []

        class Counted(np.ndarray):
            pass

        def solver(first, second):
            alive[:] = [flow for flow in alive if flow() is not None]
            assert len(alive) <= 3
            flow = np.zeros((len(first), 2, 48, 64), np.float32).view(Counted)
            alive.append(weakref.ref(flow))
            return flow

        assert self.write(tmp_path / "f.h5", tmp_path / "x.h5", solver=solver, batch=8) == 600

    def test_one_frame(self, tmp_path):
        make_video(tmp_path / "v.avi", 1)
        write_frames(
            read_video(tmp_path / "v.avi", short_side=None), tmp_path / "f.h5", clip="v", fingerprint="f", quality=95
        )
        with pytest.raises(ClipError, match="one frame; flow needs two"):
            self.write(tmp_path / "f.h5", tmp_path / "x.h5")

    def test_two_frames(self, tmp_path):
        make_video(tmp_path / "v.avi", 2)
        write_frames(
            read_video(tmp_path / "v.avi", short_side=None), tmp_path / "f.h5", clip="v", fingerprint="f", quality=95
        )
        assert self.write(tmp_path / "f.h5", tmp_path / "x.h5") == 1

    def test_a_solver_that_refuses_is_a_failed_clip(self, frames, tmp_path):
        def refuse(first, second):
            raise ValueError("frames must have at least 3 pixels per side")

        with pytest.raises(ClipError, match="at least 3 pixels"):
            self.write(frames, tmp_path / "x.h5", solver=refuse)

    def test_flow_that_is_not_finite_is_a_failed_clip(self, frames, tmp_path):
        def solver(first, second):
            flow = difference(first, second)
            flow[1, 0, 3, 3] = np.nan
            return flow

        with pytest.raises(ClipError, match="flow 1 is not finite"):
            self.write(frames, tmp_path / "x.h5", solver=solver)

    @pytest.mark.parametrize("codec", ["jpeg", "png"])
    def test_levels_of_a_solver_make_the_same_file_as_its_flow(self, frames, tmp_path, codec):
        self.write(frames, tmp_path / "flow.h5", codec=codec)
        self.write(frames, tmp_path / "levels.h5", codec=codec, solver=self.quantized)
        assert (tmp_path / "levels.h5").read_bytes() == (tmp_path / "flow.h5").read_bytes()

    def test_levels_of_flow_that_is_not_finite_are_a_failed_clip(self, frames, tmp_path):
        def solver(first, second):
            found = self.quantized(first, second)
            found.finite[1] = False
            return found

        with pytest.raises(ClipError, match="flow 1 is not finite"):
            self.write(frames, tmp_path / "x.h5", solver=solver)

    @staticmethod
    def quantized(first, second):
        flow = difference(first, second)
        beyond = (np.abs(flow) > 20).any(1).sum((1, 2))
        return QuantizedFlow(quantize(flow, 20), beyond, np.isfinite(flow).all((1, 2, 3)))

    def test_the_size_of_the_frames_may_decide_how_many_are_solved_at_once(self, frames, tmp_path):
        asked, solved = [], []

        def batch(height, width):
            asked.append((height, width))
            return 7

        def solver(first, second):
            solved.append(len(first))
            return difference(first, second)

        self.write(frames, tmp_path / "x.h5", solver=solver, batch=batch, size=(24, 20))
        assert asked == [(20, 24)]
        assert solved == [7, 3]


class TestHostileFiles:
    """Sound as files, with images that no writer of this project puts side by side."""

    def images(self, path, kind="flow", attributes=None, **rows):
        identity = {"kind": kind, "clip": "v", "fingerprint": "f"}
        with ClipFileWriter(path, **identity, attributes=attributes or {}) as writer:
            for name, shapes in rows.items():
                images = writer.images(name)
                for shape in shapes:
                    images.append(encode_image(np.zeros(shape, np.uint8), "png", 1))
        return path

    def test_frames_of_two_sizes_make_no_flow(self, tmp_path):
        frames = self.images(tmp_path / "f.h5", "frames", frames=[(48, 64), (48, 64), (40, 64)])
        with pytest.raises(ClipFileError, match=r"f\.h5: its frames have different sizes"):
            write_flow(
                frames, tmp_path / "x.h5", clip="v", fingerprint="e", solver=difference,
                form=FlowFormat(bound=20.0), batch=2,
            )  # fmt: skip

    @pytest.mark.parametrize(
        ("x", "y", "words"),
        [
            ([(4, 5), (4, 5)], [(4, 5)], "y has images 0 to 0, not 1"),
            ([(4, 5)], [(5, 4)], "another size"),
            ([(4, 5), (4, 6)], [(4, 5)] * 2, "another size"),
            ([(4, 5, 3)], [(4, 5, 3)], "in colour"),
        ],
    )
    def test_x_and_y_that_do_not_fit(self, tmp_path, x, y, words):
        path = self.images(tmp_path / "x.h5", x=x, y=y)
        with pytest.raises(ClipFileError, match=words) as error:
            read_flow_levels(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("attributes", [{}, {"height": "4", "width": 5}, {"height": -1, "width": 5}])
    def test_a_size_that_is_none(self, tmp_path, attributes):
        path = self.images(tmp_path / "x.h5", attributes=attributes, x=[(4, 5)], y=[(4, 5)])
        with pytest.raises(ClipFileError, match="does not say how large"):
            read_flow_levels(path, [])
