"""Where the systems looked: strips of attention maps over frames (the paper's figure 4)."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from han_core.clipfile.reader import ClipFile
from han_core.datasets.synthetic.generate import actor_boxes
from han_core.figures.attention import attention_strip
from han_core.figures.flow import flow_picture
from han_core.flow.flowfile import read_flow_levels
from han_core.flow.levels import dequantize
from han_core.images.codec import encode_image
from han_core.images.frames import read_frames
from han_core.predictions import Attention, attention_file, probabilities_file, read_attention, read_predictions
from han_core.report.document import Block, Heading, Paragraph, Picture
from han_core.rows import Row
from pipeline.params import Params, synthetic_spec
from pipeline.paths import Paths, clip_file
from pipeline.predictions import attending_rows
from pipeline.shown_clips import choose_clips

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable

STRIP = 8  # frames of a strip of attention maps
_JPEG = 88


def where_it_looked(params: Params, table: "ClipTable", paths: Paths) -> list[Block]:
    """Figure 4 for the clips that ``report.clips`` names, or for as many as it says, by the models of the first seed.
    Clips that failed in an earlier stage, and so have no maps, are left out."""
    shown = shown_rows(params)
    looks = cache(lambda row, split: _Look(_folder(params, row, split), row, table.classes))
    chosen = [
        (split, clip)
        for split, clip in choose_clips(params, table)
        if all(looks(row, split).has(clip) for row in shown)
    ]
    if not shown or not chosen:
        return []
    text = [
        f"Frames; the attention maps of {' and of '.join(shown.values())} over them, the strongest region circled; "
        "flow, whose hue is the direction."
    ]
    if len(params.train.seeds) > 1:
        text.append(f"Of the models that were trained with seed {params.train.seeds[0]}.")
    if any(looks(row, split).starts_uniform(clip) for row in shown for split, clip in chosen):
        text.append("The first map of HAN is uniform, because h_0 = 0.")
    if params.dataset.kind == "synthetic":
        text.append("The white frame is the actor's box, which no model sees.")
    blocks: list[Block] = [Heading("Where it looked (figure 4)"), Paragraph(" ".join(text))]
    for number, (split, clip) in enumerate(chosen, start=1):
        looked = {label: looks(row, split) for row, label in shown.items()}
        answers = " ".join(f"{label}: {look.answer(clip)}." for label, look in looked.items())
        strip = _strip(params, paths, clip, looked)
        blocks.append(Paragraph(f"{clip.name}: {clip.class_name}. {answers}"))
        blocks.append(Picture(f"attention-{number}.jpg", _jpeg(strip), "jpeg", f"attention in {clip.name}", wide=True))
    return blocks


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

    def answer(self, clip: "Clip") -> str:
        """The most likely class and its probability."""
        chances = self._probabilities[clip.key]
        best = int(chances.argmax())
        return f"{self._classes[best]} ({100 * chances[best]:.0f} %)"


def _strip(params: Params, paths: Paths, clip: "Clip", looked: dict[str, _Look]) -> np.ndarray:
    taken = next(iter(looked.values())).frames(clip)
    steps = np.linspace(0, len(taken) - 1, min(STRIP, len(taken))).round().astype(int)
    frames = read_frames(clip_file(paths.frames, clip.class_name, clip.name), taken[steps])
    boxes = None
    if params.dataset.kind == "synthetic":
        scale = [frames.shape[2] / params.synthetic.width, frames.shape[1] / params.synthetic.height] * 2
        boxes = actor_boxes(synthetic_spec(params), clip.name)[taken[steps]] * np.array(scale)
    flow = _flow(clip_file(paths.flow, clip.class_name, clip.name), taken[steps])
    maps = {label: look.maps(clip)[steps] for label, look in looked.items()}
    return attention_strip(frames, maps, flow=flow, boxes=boxes)


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
