"""The tables of the report, from the metrics and plots that earlier stages wrote."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from han_core.report.document import Block, Code, Fold, Heading, Paragraph, Table
from han_core.rows import DATASETS, Row, by_name, table_lines, title_of
from pipeline.params import Params
from pipeline.report.chosen import ABOUT_SETTINGS, settings_column, settings_of

if TYPE_CHECKING:
    from han_core.clips import ClipTable
    from pipeline.paths import Paths

Summary = Mapping[str, dict]
"""``metrics/<dataset>/evaluate.json``: {model: {top1: {mean, std, ..}, right, clips, missing, ..}}; with several seeds
also {seeds, over_seeds} (``han_core/evaluation/results.py``)."""

MISSING = "missing"
_TOOLS = (
    "han-video", "torch", "torchvision", "numpy", "opencv-contrib-python", "h5py", "numba", "safetensors", "dvc"
)  # fmt: skip


def read_summaries(params: Params, folder: Path) -> dict[str, Summary]:
    """{dataset: what ``evaluate`` found}: this one first, then the paper's, then all others there are."""
    found = {path.parent.name: path for path in folder.glob("*/evaluate.json")}
    first = [params.dataset.name, *DATASETS]
    order = [*dict.fromkeys(first), *sorted(set(found) - set(first))]
    return {name: json.loads(found[name].read_text(encoding="utf-8")) for name in order if name in found}


def paper_of(params: Params, dataset: str) -> str | None:
    """Which of the paper's datasets a dataset is: this one by its kind, others by their name."""
    kind = params.dataset.kind if dataset == params.dataset.name else dataset
    return kind if kind in DATASETS else None


def table_1(params: Params, summaries: Mapping[str, Summary]) -> list[Block]:
    """The variants of HAN on every dataset, the paper's figures beside ours."""
    columns = _columns(params, summaries)
    rows = []
    for line, (whole, *parts) in table_lines(1).items():
        for row in (whole, *(part for part in parts if _ran(part, summaries))):
            cells = [line if row is whole else f"{line}: {_within_a_line(row.title)}"]
            for dataset, paper in columns:
                cells.append(_accuracy(summaries.get(dataset, {}).get(row.name)))
                if paper:
                    cells.append(str(row.paper[paper]) if row is whole else "-")
            rows.append([*cells, settings_of(params, summaries, row.name)])
    blocks: list[Block] = [
        Heading("Table 1"),
        Paragraph(
            f"Top-1 in per cent{_about_splits(summaries)}; in brackets right / tested clips. "
            f"{_about_seeds(summaries)}“{MISSING}”: not run yet."
        ),
        _with_settings(["Variant", *_header(columns), settings_column(params)], rows),
        Paragraph(ABOUT_SETTINGS),
    ]
    lost = max((figures["missing"] for figures in summaries[params.dataset.name].values()), default=0)
    if lost:
        blocks.append(Paragraph(f"Test clips that failed in an earlier stage and count as wrong: {lost:g}."))
    return blocks


def table_2(params: Params, summaries: Mapping[str, Summary]) -> list[Block]:
    """Other methods: what the paper prints, and ours where it was run."""
    columns = _columns(params, summaries)
    rows = []
    for line, ours in table_lines(2).items():
        ran = [row for row in ours if _ran(row, summaries)]
        several = len([row for row in ours if row in ran or not row.ensemble_of]) > 1
        figures = {dataset: figure for row in ours for dataset, figure in row.paper.items()}
        for row in ran or ours[:1]:
            cells = [f"{line}: {_within_a_line(row.title)}" if row in ran and several else line]
            # The paper's figure belongs to the line, whose first row shows it.
            first = row in (*ran, ours[0])[:1]
            for dataset, paper in columns:
                cells.append(_accuracy(summaries.get(dataset, {}).get(row.name)) if row.stage else "-")
                if paper:
                    cells.append(str(figures[paper]) if first and paper in figures else "-")
            rows.append([*cells, settings_of(params, summaries, row.name)])
    blocks: list[Block] = [
        Heading("Table 2"),
        Paragraph(
            "Other methods as the paper prints them, ours as in Table 1. “-”: not printed, or not part of this project."
        ),
        _with_settings(["Method", *_header(columns), settings_column(params)], rows),
    ]
    notes = [
        [line, row.title, row.reruns or "-", row.deviations or "-"]
        for line, ours in table_lines(2).items()
        for row in ours
        if (row.reruns or row.deviations) and _ran(row, summaries)
    ]
    if notes:
        text = (
            "What others got with these methods (top-1 in per cent, UCF-101 / HMDB-51), and how ours differ from the "
            "originals."
        )
        header = ["Method", "Row", "Reruns", "Ours differs"]
        blocks += [Paragraph(text), Fold("Reruns and differences", [Table(header, notes, words=range(1, 4))])]
    return blocks


def _with_settings(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose last column says where settings come from."""
    return Table(header, rows, words=[len(header) - 1])


def _ran(row: Row, summaries: Mapping[str, Summary]) -> bool:
    """Whether there are figures of it, of any dataset."""
    return any(row.name in summary for summary in summaries.values())


def _splits_of(figures: Mapping[str, dict]) -> int:
    return sum(name.startswith("split_") for name in figures["top1"])


def _about_splits(summaries: Mapping[str, Summary]) -> str:
    """What is shown of several splits; "" where no row has more than one, which has no spread."""
    if not any(_splits_of(figures) > 1 for summary in summaries.values() for figures in summary.values()):
        return ""
    return ", mean over the splits, ± the standard deviation over the splits where there are several"


def _about_seeds(summaries: Mapping[str, Summary]) -> str:
    """What is shown of rows with several seeds; "" where there are none."""
    if not any("over_seeds" in figures for summary in summaries.values() for figures in summary.values()):
        return ""
    return (
        "Of rows that were trained with several seeds: mean over the seeds, ± the standard deviation over the seeds "
        "(of each seed's mean over the splits), right clips as a mean over the seeds, of those tested; then, of "
        "several splits, ± the standard deviation over the splits (of each split's mean over the seeds). "
    )


def _within_a_line(title: str) -> str:
    """A title that does not begin the line: "Both nets", but "HOF alone"."""
    return title if title[:2].isupper() else f"{title[:1].lower()}{title[1:]}"


def other_models(params: Params, summaries: Mapping[str, Summary]) -> list[Block]:
    """What was scored and stands in neither table of the paper."""
    summary = summaries[params.dataset.name]
    printed = {name for name in summary if (row := by_name(name)) and row.lines}
    rows = [
        [title_of(name), _accuracy(figures), settings_of(params, summaries, name)]
        for name, figures in summary.items()
        if name not in printed
    ]
    header = ["Model", "top-1 (%)", settings_column(params)]
    return [Heading("Baselines"), _with_settings(header, rows)] if rows else []


def cues(summary: Summary) -> list[Block]:
    """Which cues of the synthetic classes each model sees; nothing for other datasets."""
    with_cues = {name: figures["cues"] for name, figures in summary.items() if "cues" in figures}
    if not with_cues:
        return []
    names = list(next(iter(with_cues.values())))
    rows = [[title_of(name), *(f"{100 * found[cue]:.0f}" for cue in names)] for name, found in with_cues.items()]
    text = (
        "Every class is a colour, a tempo and an order of two sub-actions; this is how often each was recognised "
        "correctly. Guessing gets 50. Flow does not show the colour; single frames do not show the tempo; averages "
        "over time do not show the order."
    )
    return [Heading("Accuracy by cue (%)"), Paragraph(text), Table(["Model", *names], rows)]


def attention_scores(path: Path) -> list[Block]:
    """How good the attention maps are; see ``pipeline/evaluate/attention.py``."""
    scores = json.loads(path.read_text(encoding="utf-8"))
    if not scores:
        return []
    if "uniform" not in scores:
        rows = [[title_of(name), f"{found['effective_regions']:.0f}"] for name, found in scores.items()]
        text = "Over how many of its regions a map is spread, mean over the test clips' frames, and over the seeds."
        return [Heading("Attention"), Paragraph(text), Table(["Model", "regions"], rows)]
    blind = {"uniform": "Uniform map", "centre_prior": "Centre prior (Gaussian)"}
    rows = []
    for name, found in scores.items():
        shuffled = found.get("shuffled")
        rows.append(
            [
                blind.get(name) or title_of(name),
                f"{100 * found['mass']:.1f}",
                f"{100 * shuffled['mass']:.1f}" if shuffled else "-",
                f"{100 * found['pointing']:.1f}",
                f"{100 * shuffled['pointing']:.1f}" if shuffled else "-",
                f"{found['effective_regions']:.0f}" if shuffled else "-",
            ]
        )
    rows.sort(key=lambda row: row[0] in blind.values())
    header = ["Map", "mass in the box (%)", "shuffled", "pointing game (%)", "shuffled", "regions"]
    text = (
        "The actor's box is known in every frame. Mass: share of the attention inside it. Pointing game: how often "
        "the middle of the strongest region lies inside it. Shuffled: the same maps in a random order of the frames. "
        "Regions: over how many of them a map is spread. A map that knows nothing scores as the last rows."
    )
    return [Heading("Attention scored"), Paragraph(text), Table(header, rows)]


def damage(table: "ClipTable") -> list[Block]:
    """The clips whose videos are damaged and were used all the same; nothing where there are none."""
    rows = [[clip.key, clip.damaged] for clip in table.clips if clip.damaged]
    if not rows:
        return []
    text = f"Clips with damaged pictures, whose other pictures were used: {len(rows)} of {len(table.clips)}."
    return [Heading("Damaged videos"), Paragraph(text), Fold("The clips", [Table(["Clip", "damaged pictures"], rows)])]


def store(params: Params, paths: "Paths") -> list[Block]:
    """Clips, sparsity and size of the cubes of every stream and split, as the cubes stage counted them."""
    from han_core.cubes.statistics import read_statistics

    rows = []
    for split in params.splits:
        for stream in ("spatial", "temporal"):
            path = paths.store_statistics(stream, split)
            if not path.is_file():
                continue
            found = read_statistics(path)
            rows.append(
                [
                    f"{stream}, split {split}",
                    str(found.clips),
                    " x ".join(map(str, found.shape)),
                    f"{100 * found.zeros:.1f}",
                    f"{found.raw_bytes / 1e6:,.1f}",
                    f"{found.stored_bytes / 1e6:,.1f}",
                    f"{found.raw_bytes / found.stored_bytes:.1f}",
                    f"{found.file_bytes / 1e6:,.1f}",
                ]
            )
    header = ["Cubes", "clips", "a clip", "zeros (%)", "raw (MB)", "stored (MB)", "times smaller", "files (MB)"]
    text = "Raw: the cubes as dense float16. Files: with the fully connected features and all that describes a clip."
    return [Heading("The store"), Paragraph(text), Table(header, rows)]


def origin(params: Params) -> list[Block]:
    """The params and the versions of the tools that made all this."""
    shown = params.model_dump(mode="json", by_alias=True, exclude={"run"})
    versions = [["python", platform.python_version()], *([name, _version(name)] for name in _TOOLS)]
    return [
        Heading("What made it"),
        Fold("Params", [Code(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))]),
        Fold("Versions", [Table(["Tool", "version"], versions)]),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed under this name"


def _columns(params: Params, summaries: Mapping[str, Summary]) -> list[tuple[str, str | None]]:
    """(dataset, which of the paper's it is): this one, both of the paper's, and all others that were run."""
    found = [(name, paper_of(params, name)) for name in summaries]
    there = {paper for _, paper in found}
    absent = [(name, name) for name in DATASETS if name not in there]
    return [*found, *absent]


def _header(columns: Sequence[tuple[str, str | None]]) -> list[str]:
    header = []
    for dataset, paper in columns:
        title = dataset if paper is None else DATASETS[paper]
        header += [f"{title}, ours", f"{title}, paper"] if paper else [title]
    return header


def _accuracy(figures: dict | None) -> str:
    """``62.5 (20 / 32)``, of several splits ``62.5 ± 1.2 (60 / 96)``; with several seeds ``62.5 ± 0.9 over 5 seeds
    (20.0 of 32), ± 1.2 over 3 splits``."""
    if figures is None:
        return MISSING
    top1, over_seeds, splits = figures["top1"], figures.get("over_seeds"), _splits_of(figures)
    mean, spread = f"{100 * top1['mean']:.1f}", f"± {100 * top1['std']:.1f}"
    if over_seeds is None:
        return f"{mean}{f' {spread}' if splits > 1 else ''} ({figures['right']} / {figures['clips']})"
    seeds = f"± {100 * over_seeds['top1']['std']:.1f} over {len(figures['seeds'])} seeds"
    text = f"{mean} {seeds} ({figures['right']:.1f} of {figures['clips']})"
    return f"{text}, {spread} over {splits} splits" if splits > 1 else text
