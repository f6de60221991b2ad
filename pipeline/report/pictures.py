"""The pictures of the report: learning curves, confusion, and where the models looked (the paper's figure 4)."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from han_core.errors import HanError
from han_core.report.charts import confusion_chart, line_chart
from han_core.report.document import Block, Fold, Heading, Paragraph, Picture
from pipeline.curve import read_curve
from pipeline.params import Params

if TYPE_CHECKING:
    from han_core.clips import Clip, ClipTable
    from pipeline.paths import Paths

STRIP = 8  # frames of a strip of attention maps
ROWS = {"han": "HAN", "soft_attention_lstm": "soft attention [15]"}
"""Models whose maps figure 4 shows, from the top; without any of them the first that attends stands in."""
_JPEG = 88


class ReportError(HanError, ValueError):
    """The report cannot be made as asked for."""


def curves(params: Params, paths: "Paths") -> list[Block]:
    """Means over the splits, of the training clips and of validation clips where there are any."""
    blocks: list[Block] = [Heading("Learning curves")]
    streams = ("spatial", "temporal")
    folder = paths.plots / "finetune"
    made = folder.is_dir()  # not where nets were put there by hand
    lines = {name: mean for name in streams if made and (mean := _mean_curve(folder, name, params.finetune.splits))}
    if lines:  # not where the nets are used as they are
        drawn = line_chart(lines, x_label="iteration", y_label="fine-tuning loss")
        blocks.append(Picture("curve-finetune-loss.svg", drawn, "svg", "fine-tuning loss by iteration, one line a net"))
    folder = paths.plots / "train"
    for column, label in (
        ("loss", "training loss"),
        ("top1", "training top-1, dropout on"),
        ("validation_loss", "validation loss"),
        ("validation_top1", "validation top-1"),
    ):
        lines = {name: mean for name in params.models if (mean := _mean_curve(folder, name, params.splits, column))}
        if lines:
            top = 1.02 if column.endswith("top1") else None
            drawn = line_chart(lines, x_label="epoch", y_label=label, top=top)
            name = f"curve-{column.replace('_', '-')}.svg"
            blocks.append(Picture(name, drawn, "svg", f"{label} by epoch, one line a model"))
    return blocks


def _mean_curve(folder: Path, name: str, splits: Sequence[int], figure: str = "loss") -> dict[int, float]:
    """Step -> mean over the splits, at the steps that all of them have; empty where one lacks the figure."""
    curves = [read_curve(folder / f"{name}-{split}", figure) for split in splits]
    shared = [step for step in (curves[0] if curves else ()) if all(step in curve for curve in curves)]
    return {step: sum(curve[step] for curve in curves) / len(curves) for step in shared}


def confusion(params: Params, table: "ClipTable", paths: "Paths") -> list[Block]:
    """A matrix a model, test clips of all splits together; the first model's is open."""
    blocks: list[Block] = [
        Heading("Confusion"),
        Paragraph(
            "Rows are the true classes, columns the predicted ones. The fuller the colour, the larger the share."
        ),
    ]
    place = {name: n for n, name in enumerate([*table.classes, "(failed)"])}
    for model in params.models:
        with (paths.plots / "confusion" / f"{model}.csv").open(encoding="utf-8", newline="") as file:
            pairs = [(place[row["actual"]], place[row["predicted"]]) for row in csv.DictReader(file)]
        counts = np.zeros((len(table.classes), len(place)), np.int64)
        np.add.at(counts, tuple(np.array(pairs, int).reshape(-1, 2).T), 1)
        if not counts[:, -1].any():
            counts = counts[:, :-1]
        drawn = confusion_chart(counts, table.classes)
        picture = Picture(f"confusion-{model}.svg", drawn, "svg", f"confusion matrix of {model}", wide=True)
        blocks += [Paragraph(model), picture] if model == params.models[0] else [Fold(model, [picture])]
    return blocks


def where_it_looked(params: Params, table: "ClipTable", paths: "Paths") -> list[Block]:
    """Figure 4 for the clips that ``report.clips`` names, or for as many as it says."""
    from pipeline.evaluate.attention import attending_models

    attending = attending_models(params)
    rows = {name: title for name, title in ROWS.items() if name in attending}
    rows = rows or {name: name for name in attending[:1]}
    chosen = choose_clips(params, table)
    if not rows or not chosen:
        return []
    text = [
        f"Frames; the attention maps of {' and of '.join(rows.values())} over them, the strongest region circled; "
        "flow, whose hue is the direction."
    ]
    if any(name != "soft_attention_lstm" for name in rows):
        text.append("The first map of HAN is uniform, because h_0 = 0.")
    if params.dataset.kind == "synthetic":
        text.append("The white frame is the actor's box, which no model sees.")
    blocks: list[Block] = [Heading("Where it looked (figure 4)"), Paragraph(" ".join(text))]
    for number, (split, clip) in enumerate(chosen, start=1):
        strip, said = _strip(params, paths, split, clip, rows)
        blocks.append(Paragraph(f"{clip.name}: {clip.class_name}. {said}"))
        blocks.append(Picture(f"attention-{number}.jpg", _jpeg(strip), "jpeg", f"attention in {clip.name}", wide=True))
    return blocks


def choose_clips(params: Params, table: "ClipTable") -> "list[tuple[int, Clip]]":
    """(split, test clip) of every strip; a clip named in the params comes with the first split that tests it.

    A number takes so many of the first split, evenly from the list, so that classes differ.

    Raises:
        ReportError: a named clip is no test clip of any split.
    """
    wanted = params.report.clips
    if isinstance(wanted, int):
        split = params.splits[0]
        clips = table.select(split, "test")
        places = np.linspace(0, len(clips) - 1, min(wanted, len(clips))).round().astype(int)
        return [(split, clips[place]) for place in places]
    tested = {clip.name: (split, clip) for split in reversed(params.splits) for clip in table.select(split, "test")}
    unknown = [name for name in wanted if name not in tested]
    if unknown:
        raise ReportError(
            f"report.clips: {', '.join(unknown)}: no test clip of split(s) {', '.join(map(str, params.splits))} has "
            "this name; names are in the clip column of clips.csv"
        )
    return [tested[name] for name in wanted]


def _strip(params: Params, paths: "Paths", split: int, clip: "Clip", rows: dict[str, str]) -> tuple[np.ndarray, str]:
    from han_core.clipfile.reader import ClipFile
    from han_core.figures.attention import attention_strip
    from han_core.images.frames import read_frames
    from pipeline.evaluate.attention import attention_maps, boxes_at
    from pipeline.paths import clip_file

    maps, said = {}, []
    streams: tuple[str, ...] = ()
    for name, title in rows.items():
        for _, found, chances, trained in attention_maps(params, name, split, [clip]):
            maps[title] = found
            streams = streams or trained.model.config.streams
            best = int(chances.argmax())
            said.append(f"{title}: {trained.classes[best]} ({100 * chances[best]:.0f} %).")
    with ClipFile(clip_file(paths.cubes(streams[0], split), clip.class_name, clip.name)) as file:
        taken = file.array("frames")
    steps = np.linspace(0, len(taken) - 1, min(STRIP, len(taken))).round().astype(int)
    frames = read_frames(clip_file(paths.frames, clip.class_name, clip.name), taken[steps])
    boxes = None
    if params.dataset.kind == "synthetic":
        scale = [frames.shape[2] / params.synthetic.width, frames.shape[1] / params.synthetic.height] * 2
        boxes = boxes_at(params, clip, taken[steps]) * np.array(scale)
    flow = _flow(clip_file(paths.flow, clip.class_name, clip.name), taken[steps])
    strip = attention_strip(frames, {t: found[steps] for t, found in maps.items()}, flow=flow, boxes=boxes)
    return strip, " ".join(said)


def _flow(path: Path, frames: np.ndarray) -> np.ndarray:
    """Pictures (T, H, W, 3) of the flow from the given frames to the next; the last frame has that into it."""
    from han_core.clipfile.reader import ClipFile
    from han_core.figures.flow import flow_picture
    from han_core.flow.flowfile import read_flow_levels
    from han_core.flow.levels import dequantize

    with ClipFile(path) as file:
        count, bound = file.image_count("x"), file.attributes["bound"]
    fields = dequantize(read_flow_levels(path, np.minimum(frames, count - 1)), bound)
    # Full colour for the fastest pixels but a few, so that a spike does not turn all else pale.
    fast = float(np.quantile(np.hypot(fields[:, 0], fields[:, 1]), 0.995))
    return flow_picture(fields, max(fast, 0.5))


def _jpeg(picture: np.ndarray) -> bytes:
    import cv2

    from han_core.images.codec import encode_image

    return encode_image(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), "jpeg", _JPEG)
