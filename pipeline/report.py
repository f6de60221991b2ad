"""Stage ``report``: Table 1 of this dataset as Markdown, with learning curves and attention maps as pictures.

Writes ``report/<dataset>/report.md`` and the PNG files it shows.
"""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.errors import HanError
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:
    from han_core.datasets.clips import ClipTable
    from pipeline.paths import Paths

# Table 1 of the paper, mean accuracy over three splits in per cent.
PAPER = {
    "ucf101": {"han": 92.7, "no_attention": 90.6, "fc_features": 91.1, "spatial": 75.1, "temporal": 85.4},
    "hmdb51": {"han": 64.3, "no_attention": 62.0, "fc_features": 62.7, "spatial": 47.7, "temporal": 58.3},
}
STRIP = 8  # frames of a strip of attention maps; more are too small to see
BASELINES = {
    "linear": "Logistic regression, both streams' cubes averaged over the regions",
    "linear_spatial": "Logistic regression, spatial cubes only",
    "linear_temporal": "Logistic regression, temporal cubes only",
    "linear_mean": "The same averaged over the frames too, both streams",
    "linear_mean_spatial": "Averaged over regions and frames, spatial cubes only",
    "linear_mean_temporal": "Averaged over regions and frames, temporal cubes only",
    "frame_size": "Logistic regression on width and height of the clip alone",
}


@click.command(help=__doc__)
@params_option
def main(params_path: Path) -> None:
    """Write the report."""
    params = load_params(params_path)

    try:
        run(params)
    except HanError as error:
        raise click.ClickException(str(error)) from None
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is missing; run the stages before report first") from None


def run(params: Params) -> None:
    """Write the report's Markdown and pictures."""
    from han_core.datasets.clips import read_clips
    from pipeline.paths import Paths

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    summary = json.loads((paths.metrics / "evaluate.json").read_text(encoding="utf-8"))
    paths.report.mkdir(parents=True, exist_ok=True)
    splits = ", ".join(map(str, params.splits))
    parts = [
        f"# {params.dataset.name}",
        f"{len(table.clips)} clips, {len(table.classes)} classes; test clips of split(s) {splits}.",
        "## Table 1",
        _table1(summary, params),
        *_cues(summary),
        "## Accuracy by class (%)",
        _per_class(paths.plots / "per_class.csv"),
        "## Learning curves",
        _picture(_curves(params, paths), "Loss by epoch, one line a model"),
    ]
    strips = _attention(params, table, paths) if "han" in params.models else []
    if strips:
        parts += [
            "## Where HAN looked",
            "Above the frames, below the attention map over them; the circle is the region with most weight. "
            "The first map of a clip is uniform, because h_0 = 0.",
            *strips,
        ]
    target = paths.report / "report.md"
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    click.echo(f"report -> {target}")


def _table1(summary: dict, params: Params) -> str:
    from han_core.han import VARIANTS

    paper = PAPER.get(params.dataset.kind, {})
    header = ["Model", "top-1 (%)", "std over splits", "right / clips"] + (["paper (%)"] if paper else [])
    rows = []
    for name, figures in summary.items():
        title = VARIANTS[name].title if name in VARIANTS else BASELINES[name]
        row = [
            title,
            f"{100 * figures['top1']['mean']:.1f}",
            f"{100 * figures['top1']['std']:.1f}",
            f"{figures['right']} / {figures['clips']}",
        ]
        rows.append(row + ([str(paper.get(name, "-"))] if paper else []))
    missing = max(figures["missing"] for figures in summary.values())
    note = f"\n\n{missing} test clip(s) failed in an earlier stage and count as wrong." if missing else ""
    return _markdown(header, rows) + note


def _cues(summary: dict) -> list[str]:
    """Which cues of the synthetic classes each model sees; nothing for other datasets."""
    if not all("cues" in figures for figures in summary.values()):
        return []
    cues = list(next(iter(summary.values()))["cues"])
    rows = [[name, *(f"{100 * figures['cues'][cue]:.0f}" for cue in cues)] for name, figures in summary.items()]
    text = (
        "Every class is a colour, a tempo and an order of two sub-actions; this is how often each was told "
        "rightly. Guessing gets 50. Flow does not show the colour; single frames do not show the tempo; averages over "
        "time do not show the order."
    )
    return ["## Accuracy by cue (%)", text, _markdown(["Model", *cues], rows)]


def _per_class(path: Path) -> str:
    """Rows are classes, columns models."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_class: dict[str, dict[str, str]] = {}
    for row in rows:
        by_class.setdefault(row["class"], {})[row["model"]] = f"{100 * float(row['top1']):.0f}"
    return _markdown(
        ["Class", *models], [[name, *(cells.get(m, "-") for m in models)] for name, cells in by_class.items()]
    )


def _curves(params: Params, paths: "Paths") -> Path:
    """Mean training loss over the splits against the epoch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), dpi=120)
    for name in params.models:
        losses = []
        for split in params.splits:
            with (paths.plots / "train" / f"{name}-{split}.csv").open(encoding="utf-8", newline="") as file:
                losses.append([float(row["loss"]) for row in csv.DictReader(file)])
        mean = [sum(values) / len(values) for values in zip(*losses, strict=True)]
        axes.plot(range(1, len(mean) + 1), mean, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.tight_layout()
    target = paths.report / "learning_curves.png"
    figure.savefig(target, metadata={"Software": None})
    pyplot.close(figure)
    return target


def _attention(params: Params, table: "ClipTable", paths: "Paths") -> list[str]:
    """A strip for some test clips of the first split, taken evenly from the list so that classes differ."""
    import cv2
    import numpy as np
    import torch

    from han_core.clipfile import ClipFile
    from han_core.cubestore import CubeStore
    from han_core.figures import attention_strip
    from han_core.frames import read_frames
    from han_core.model_file import load_model
    from pipeline.paths import clip_file

    split = params.splits[0]
    clips = table.select(split, "test")
    wanted = min(params.report.clips, len(clips))
    if not wanted:
        return []
    chosen = [clips[i] for i in np.linspace(0, len(clips) - 1, wanted).round().astype(int)]
    trained = load_model(paths.han("han", split))
    store = CubeStore({s: paths.cubes(s, split) for s in ("spatial", "temporal")}, chosen)
    shown = []
    for index, clip in enumerate(store.clips):
        with torch.no_grad():
            output = trained.model(store.batch([index]))
        with ClipFile(clip_file(paths.cubes("spatial", split), clip.class_name, clip.name)) as file:
            frame_indices = file.array("frames")
        steps = np.linspace(0, len(frame_indices) - 1, min(STRIP, len(frame_indices))).round().astype(int)
        frames = read_frames(clip_file(paths.frames, clip.class_name, clip.name), frame_indices[steps])
        strip = attention_strip(frames, output.attention[0].numpy()[steps])
        target = paths.report / f"attention-{index + 1}.png"
        cv2.imwrite(str(target), cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
        said = trained.classes[int(output.logits.argmax())]
        shown.append(f"**{clip.name}**: {clip.class_name}, taken for {said}\n\n" + _picture(target, clip.name))
    return shown


def _picture(path: Path, text: str) -> str:
    return f"![{text}]({path.name})"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
