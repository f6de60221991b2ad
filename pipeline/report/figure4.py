"""Where the systems looked: attention maps over playing clips, and strips of them (the paper's figure 4)."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.datasets.synthetic.generate import actor_boxes
from han_core.evaluation.attention_quality import effective_regions
from han_core.figures.attention import CIRCLED, attention_strip
from han_core.figures.flow import flow_picture
from han_core.figures.playing import attention_frames
from han_core.flow.flowfile import read_flow_levels
from han_core.flow.levels import dequantize
from han_core.images.codec import encode_image
from han_core.images.frames import read_frames
from han_core.predictions import Attention, attention_file, probabilities_file, read_attention, read_predictions
from han_core.report.document import Block, Heading, Paragraph, Picture, Video
from han_core.rows import Row
from han_core.video.encode import encode_video
from pipeline.params import Params, synthetic_spec
from pipeline.paths import Paths, clip_file
from pipeline.predictions import attending_rows
from pipeline.report.predictions import clip_names
from pipeline.report.room import Room, inside_a_page
from pipeline.shown_clips import choose_clips

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable

STRIP = 8  # frames of a strip of attention maps
_JPEG = 88
_SIDES = ((192, 128), (128, 128), (128, 96), (96, 64), (0, 64))
"""Heights in pixels of a playing clip's frames and of a strip's, tried in this order; 0: no playing clip."""
_SHARE = 200_000
"""Bytes that a clip may take though many clips share the room: fewer clips, but such that show something."""
_PLAYED = 150  # frames of a playing clip; of a longer one every second, third, .. frame


def where_it_looked(params: Params, table: "ClipTable", paths: Paths, room: Room) -> list[Block]:
    """Figure 4 for the clips that ``report.clips`` names, or for as many as it says, by the models of the first seed.

    Clips that failed in an earlier stage, and so have no maps, are left out. Where the room is scarce, pictures are
    smaller, then clips fewer; the page says so.
    """
    shown = shown_rows(params)
    looks = cache(lambda row, split: _Look(_folder(params, row, split), row, table.classes))
    chosen = [
        (split, clip)
        for split, clip in choose_clips(params, table)
        if all(looks(row, split).has(clip) for row in shown)
    ]
    if not shown or not chosen:
        return []
    name_of = clip_names(table)
    blocks: list[Block] = []
    drawn = smaller = 0
    for number, (split, clip) in enumerate(chosen, start=1):
        looked = {label: looks(row, split) for row, label in shown.items()}
        share = max(room.left // (len(chosen) - number + 1), _SHARE)
        fitting = _fitting(params, paths, clip, looked, room, share)
        if fitting is None:
            break
        drawn += 1
        smaller += fitting[0] != _SIDES[0]
        _, video, strip = fitting
        answers = " ".join(f"{label}: {look.answer(clip)}." for label, look in looked.items())
        name = name_of(clip)
        spread = " ".join(look.spread(clip, label) for label, look in looked.items())
        blocks.append(Paragraph(f"{name}: {clip.class_name}. {answers} {spread}"))
        if video:
            data, width, height = video
            blocks.append(Video(f"attention-{number}.mp4", data, f"attention in {name}, playing", width, height, name))
        blocks.append(Picture(f"attention-{number}.jpg", strip, "jpeg", f"attention in {name}", wide=True))
    text = [
        f"Clips that play, beside them the same under the attention maps of {' and of '.join(shown.values())}; below, "
        f"{STRIP} frames at most, the maps over them, and flow, whose hue is the direction. The strongest region is "
        f"circled where it has at least {CIRCLED:g} times the weight that an even map gives it."
    ]
    if len(params.train.seeds) > 1:
        text.append(f"Of the models that were trained with seed {params.train.seeds[0]}.")
    if any(looks(row, split).starts_uniform(clip) for row in shown for split, clip in chosen):
        text.append("The first map of HAN is uniform, because h_0 = 0.")
    if params.dataset.kind == "synthetic":
        text.append("The white frame is the actor's box, which no model sees.")
    if drawn < len(chosen) or smaller:
        fewer = f"only {drawn} of {len(chosen)} clips are shown" if drawn < len(chosen) else ""
        small = f"pictures of {smaller} are smaller or do not play" if smaller else ""
        text.append(
            f"Because the page may have {params.report.megabytes:g} megabytes (report.megabytes), "
            f"{' and '.join(filter(None, (fewer, small)))}."
        )
    return [Heading("Where it looked (figure 4)"), Paragraph(" ".join(text)), *blocks]


def _fitting(
    params: Params, paths: Paths, clip: "Clip", looked: "dict[str, _Look]", room: Room, share: int
) -> tuple[tuple[int, int], tuple[bytes, int, int] | None, bytes] | None:
    """The largest pictures of a clip for which there is room: their heights, the playing clip with its width and
    height, and the strip; None where there is room for none."""
    for sides in _SIDES:
        strip = _jpeg(_strip(params, paths, clip, looked, sides[1]))
        video = _video(params, paths, clip, looked, sides[0]) if sides[0] else None
        if room.take(inside_a_page(strip) + (inside_a_page(video[0]) if video else 0), share):
            return sides, video, strip
    return None


def _folder(params: Params, row: Row, split: int) -> Path:
    """Of the row's predictions, those of its first seed."""
    return Paths.of(params).predictions(row.family, split, params.seeds_of(row.family)[0])


def shown_rows(params: Params) -> dict[Row, str]:
    """The rows whose maps are shown -> their label, HAN on top; where none of them ran, the first that attends."""
    attending = attending_rows(params)
    shown = sorted((row for row in attending if row.strip), key=lambda row: 1 not in row.lines)
    return {row: row.strip for row in shown} or {row: row.name for row in attending[:1]}


class _Look:
    """What one system says of the test clips of one split, and where it looked."""

    def __init__(self, folder: Path, row: Row, classes: tuple[str, ...]) -> None:
        self._attention: Attention = read_attention(attention_file(folder, row.name))
        self._probabilities = read_predictions(probabilities_file(folder, row.name), classes)
        self._classes = classes

    def has(self, clip: "Clip") -> bool:
        return clip.key in self._attention.maps

    def maps(self, clip: "Clip") -> np.ndarray:
        """(T, R)."""
        return self._attention.maps[clip.key]

    def frames(self, clip: "Clip") -> np.ndarray:
        """(T,) frame that each map lies over."""
        return self._attention.frames[clip.key]

    def starts_uniform(self, clip: "Clip") -> bool:
        first = self.maps(clip)[0]
        return bool(np.ptp(first) < 1e-6 / len(first))

    def spread(self, clip: "Clip", label: str) -> str:
        """Over how many regions the maps are spread: whether they say anything."""
        maps = self.maps(clip)
        each = [round(effective_regions(one[None])) for one in maps]
        spread = f"{min(each)} to {max(each)}" if min(each) < max(each) else str(max(each))
        return f"The maps of {label} are spread over {spread} of {maps.shape[1]} regions."

    def answer(self, clip: "Clip") -> str:
        """The most likely class and its probability."""
        chances = self._probabilities[clip.key]
        best = int(chances.argmax())
        return f"{self._classes[best]} ({100 * chances[best]:.0f} %)"


def _boxes(params: Params, clip: "Clip", width: int, height: int) -> np.ndarray | None:
    """(N, 4) the actor's box in each frame of a clip, in pixels of frames of this size; None where nobody knows it."""
    if params.dataset.kind != "synthetic":
        return None
    scale = [width / params.synthetic.width, height / params.synthetic.height] * 2
    return actor_boxes(synthetic_spec(params), clip.name) * np.array(scale)


def _video(params: Params, paths: Paths, clip: "Clip", looked: dict[str, _Look], side: int) -> tuple[bytes, int, int]:
    """MP4, width and height of a clip that plays at its own speed."""
    path = clip_file(paths.frames, clip.class_name, clip.name)
    with ClipFile(path) as file:
        count = file.image_count("frames")
        fps = float(file.attributes.get("fps") or 25)
        step = -(-count // _PLAYED)
        frames = ((number, file.image("frames", number)) for number in range(0, count, step))
        first = file.image("frames", 0)
        boxes = _boxes(params, clip, first.shape[1], first.shape[0])
        maps = {label: look.maps(clip) for label, look in looked.items()}
        taken = next(iter(looked.values())).frames(clip)
        size = [0, 0]

        def sized() -> Iterator[np.ndarray]:
            for picture in attention_frames(frames, maps, taken, boxes=boxes, side=side):
                size[:] = picture.shape[1::-1]
                yield picture

        data = encode_video(sized(), fps / step)
    return data, size[0], size[1]


def _strip(params: Params, paths: Paths, clip: "Clip", looked: dict[str, _Look], side: int) -> np.ndarray:
    taken = next(iter(looked.values())).frames(clip)
    steps = np.linspace(0, len(taken) - 1, min(STRIP, len(taken))).round().astype(int)
    frames = read_frames(clip_file(paths.frames, clip.class_name, clip.name), taken[steps])
    boxes = _boxes(params, clip, frames.shape[2], frames.shape[1])
    flow = _flow(clip_file(paths.flow, clip.class_name, clip.name), taken[steps])
    maps = {label: look.maps(clip)[steps] for label, look in looked.items()}
    boxes = None if boxes is None else boxes[taken[steps]]
    return attention_strip(frames, maps, flow=flow, boxes=boxes, side=side)


def _flow(path: Path, frames: np.ndarray) -> np.ndarray:
    """Pictures (T, H, W, 3) of the flow from the given frames to the next; the last frame has that into it."""
    with ClipFile(path) as file:
        count, bound = file.image_count("x"), file.attributes["bound"]
    fields = dequantize(read_flow_levels(path, np.minimum(frames, count - 1)), bound)
    # Full colour for the fastest pixels but a few, so that a spike does not turn all else pale.
    fast = float(np.quantile(np.hypot(fields[:, 0], fields[:, 1]), 0.995))
    return flow_picture(fields, max(fast, 0.5))


def _jpeg(picture: np.ndarray) -> bytes:
    return encode_image(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), "jpeg", _JPEG)
