"""The rows of the paper's tables: each is declared here, once, and known everywhere by its name.

A row is one system. It leaves its predictions as a file for each split (:mod:`han_core.predictions`); what evaluates
and reports knows the system by nothing else. To add one: an entry here, and the code that makes its predictions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DATASETS = {"ucf101": "UCF-101", "hmdb51": "HMDB-51"}
"""The paper's datasets and their titles."""


@dataclass(frozen=True)
class Row:
    """One system."""

    name: str
    """In params, files and metrics."""
    title: str
    stage: str | None = None
    """The stage that makes its predictions; None for a system that is not part of this project."""
    family: str = ""
    """Rows of one family are made by one run of the stage, into one folder; by default a row is alone."""
    lines: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Number of a table of the paper -> the line it belongs to there. A row in no table is a baseline."""
    paper: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Dataset -> top-1 in per cent that the paper prints, mean over three splits."""
    part: bool = False
    """It is a part of its line's system, and stands below the whole."""
    strip: str = ""
    """Label of its attention maps in figure 4; "" if they are not shown there."""
    reruns: str = ""
    """What the original authors, or others who ran their code, get: a reader compares ours with that, too."""
    deviations: str = ""
    """How ours differs from the original."""
    ensemble_of: str = ""
    """Name of the row of which it is the mean over the models of several seeds, probability by probability."""

    def __post_init__(self) -> None:
        if not self.family:
            object.__setattr__(self, "family", self.name)


def _row(
    name: str,
    title: str,
    stage: str | None = None,
    *,
    family: str = "",
    table_1: str = "",
    table_2: str = "",
    ucf101: float | None = None,
    hmdb51: float | None = None,
    part: bool = False,
    strip: str = "",
    reruns: str = "",
    deviations: str = "",
) -> Row:
    lines = {number: line for number, line in ((1, table_1), (2, table_2)) if line}
    paper = {name: value for name, value in (("ucf101", ucf101), ("hmdb51", hmdb51)) if value is not None}
    return Row(name, title, stage, family, lines, paper, part, strip, reruns, deviations)


def _with_ensembles(rows: tuple[Row, ...]) -> Iterator[Row]:
    """The rows, and below each that has a model a seed the ensemble of them, which the paper has not."""
    for row in rows:
        yield row
        if row.stage == "classify":
            title = f"{row.title}, ensemble of its seeds"
            yield Row(f"{row.name}_ensemble", title, "evaluate", lines=row.lines, part=True, ensemble_of=row.name)


_TWO_STREAM = "Two-stream CNN [16]"
_TDD = "Two-stream + iDT (TDD) [20]"
_CNN_LSTM = "Two-stream CNN + LSTM [22]"
_IDT = "iDT [19]"
_SFV = "iDT + stacked Fisher vectors [13]"
_IDT_DEVIATIONS = (
    "TV-L1 flow as stored in place of Farneback's; the camera's motion fitted to that flow, without SURF matches; no "
    "human detector; at most trajectories.most trajectories a clip"
)

_DECLARED: tuple[Row, ...] = (
    _row(
        "hog",
        "HOG along improved dense trajectories, Fisher vectors",
        "fisher_svm",
        family="fisher",
        table_2="HOG",
        ucf101=72.4,
        hmdb51=40.2,
        reruns="TDD [20] prints the same figures for the HOG channel of iDT",
        deviations=_IDT_DEVIATIONS,
    ),
    _row("hof", "HOF alone", "fisher_svm", family="fisher", table_2=_IDT, part=True, reruns="76.0 / 48.9 in TDD [20]"),
    _row("mbh", "MBH alone", "fisher_svm", family="fisher", table_2=_IDT, part=True, reruns="80.8 / 52.1 in TDD [20]"),
    _row(
        "idt",
        "Improved dense trajectories, Fisher vectors",
        "fisher_svm",
        family="fisher",
        table_2=_IDT,
        ucf101=85.9,
        hmdb51=57.2,
        reruns="84.7 / 57.2 in TDD [20], 84.5 / 57.3 by Feichtenhofer; 55.9 on HMDB-51 without human detector",
        deviations=_IDT_DEVIATIONS,
    ),
    _row("sfv", "Stacked Fisher vectors alone", "stacked_svm", family="stacked", table_2=_SFV, part=True),
    _row(
        "idt_sfv",
        "Fisher vectors and stacked Fisher vectors of iDT",
        "stacked_svm",
        family="stacked",
        table_2=_SFV,
        hmdb51=66.8,
        deviations=(
            "sizes and steps of the subvolumes and the length of their compressed vectors are ours (stacked): the "
            "paper's could not be verified; trajectories as in row idt"
        ),
    ),
    _row(
        "slow_fusion",
        "Slow Fusion, windows of ten frames",
        "slow_fusion",
        table_2="Spatio-temporal CNN [10]",
        ucf101=65.4,
        reruns="65.4 is pre-trained on Sports-1M; from scratch 41.3 in [10], and 56.4 on split 1 by [16]",
        deviations="from scratch: the weights learnt on Sports-1M were not published",
    ),
    _row("spatial_net", "Spatial net alone", "two_stream", family="two_stream", table_2=_TWO_STREAM, part=True),
    _row("temporal_net", "Temporal net alone", "two_stream", family="two_stream", table_2=_TWO_STREAM, part=True),
    _row(
        "two_stream",
        "Both nets, scores averaged",
        "two_stream",
        family="two_stream",
        table_2=_TWO_STREAM,
        ucf101=88.0,
        hmdb51=59.4,
    ),
    _row(
        "two_stream_svm", "Both nets, scores joined by an SVM", "two_stream", family="two_stream", table_2=_TWO_STREAM
    ),
    _row(
        "deep_lstm_spatial",
        "Spatial LSTM alone",
        "classify_cnn_lstm",
        family="deep_lstm",
        table_2=_CNN_LSTM,
        part=True,
    ),
    _row(
        "deep_lstm_temporal",
        "Temporal LSTM alone",
        "classify_cnn_lstm",
        family="deep_lstm",
        table_2=_CNN_LSTM,
        part=True,
    ),
    _row(
        "deep_lstm",
        "Both LSTMs, probabilities averaged",
        "classify_cnn_lstm",
        family="deep_lstm",
        table_2=_CNN_LSTM,
        ucf101=88.6,
        deviations=(
            "VGG-16 in place of GoogLeNet, fine-tuned beforehand and frozen while the LSTMs learn; no Sports-1M; cells "
            "without peepholes; cubes.frames frames equally spaced over the clip"
        ),
    ),
    _row(
        "tdd",
        "Trajectory-pooled descriptors (TDD) of both nets, without iDT",
        "tdd_svm",
        family="tdd",
        table_2=_TDD,
        part=True,
    ),
    _row(
        "tdd_idt",
        "Trajectory-pooled descriptors (TDD) + iDT",
        "tdd_svm",
        family="tdd",
        table_2=_TDD,
        ucf101=91.5,
        hmdb51=65.9,
        reruns="a reader of the authors' code got the spatial net's conv4 and conv5 8 points below their paper",
        deviations=(
            "VGG-16 in place of CNN-M-2048, so conv4_3 and conv5_3 (tdd.layers); sizes of the net's input and frames "
            "looked at by tdd.sizes and tdd.step (the original: five sizes, every frame); trajectories and iDT as "
            "in row idt"
        ),
    ),
    _row(
        "soft_attention_lstm",
        "Soft attention + LSTM [15] (spatial CNN cube)",
        "classify",
        table_2="Soft attention + LSTM [15]",
        ucf101=84.96,
        hmdb51=41.3,
        strip="soft attention [15]",
    ),
    _row(
        "han",
        "Full HAN (spatial CNN cube + temporal CNN cube)",
        "classify",
        table_1="Full HAN: spatial cube + temporal cube",
        table_2="HAN",
        ucf101=92.7,
        hmdb51=64.3,
        strip="HAN",
    ),
    _row(
        "no_attention",
        "HAN without attention 1 (spatial CNN cube + temporal CNN cube)",
        "classify",
        table_1="HAN without attention (1): both cubes, no attention",
        ucf101=90.6,
        hmdb51=62.0,
    ),
    _row(
        "fc_features",
        "HAN without attention 2 (spatial CNN 4096 + temporal CNN 4096)",
        "classify",
        table_1="HAN without attention (2): spatial 4096 + temporal 4096",
        ucf101=91.1,
        hmdb51=62.7,
    ),
    _row(
        "spatial",
        "Spatial HAN (spatial CNN cube)",
        "classify",
        table_1="Spatial HAN: spatial cube only",
        ucf101=75.1,
        hmdb51=47.7,
    ),
    _row(
        "temporal",
        "Temporal HAN (temporal CNN cube)",
        "classify",
        table_1="Temporal HAN: temporal cube only",
        ucf101=85.4,
        hmdb51=58.3,
    ),
    _row("linear_spatial", "Logistic regression, spatial cubes only", "baselines", family="linear"),
    _row("linear_temporal", "Logistic regression, temporal cubes only", "baselines", family="linear"),
    _row("linear", "Logistic regression, both streams' cubes averaged over the regions", "baselines"),
    _row(
        "linear_mean_spatial", "Averaged over regions and frames, spatial cubes only", "baselines", family="linear_mean"
    ),
    _row(
        "linear_mean_temporal",
        "Averaged over regions and frames, temporal cubes only",
        "baselines",
        family="linear_mean",
    ),
    _row("linear_mean", "The same averaged over the frames too, both streams", "baselines"),
    _row("tdd_cubes", "Cubes pooled along trajectories, Fisher vectors (not [20]: T frames, one layer)", "tdd_svm"),
    _row("frame_size", "Logistic regression on width and height of the clip alone", "baselines"),
)

ROWS: tuple[Row, ...] = tuple(_with_ensembles(_DECLARED))
"""In the order of the paper's tables, then the baselines."""


def by_name(name: str) -> Row | None:
    """The row of this name, if there is one."""
    return next((row for row in ROWS if row.name == name), None)


def ensemble_of(name: str) -> Row | None:
    """The row that is the ensemble of this one's seeds, if there is one."""
    return next((row for row in ROWS if row.ensemble_of == name), None)


def title_of(name: str) -> str:
    """Title of a row; the name itself where the registry has never heard of it (results of another version)."""
    row = by_name(name)
    return row.title if row else name


def families(stage: str) -> tuple[str, ...]:
    """What one run of a stage can be asked to make, in the order of the registry."""
    return tuple(dict.fromkeys(row.family for row in ROWS if row.stage == stage))


def rows_of(family: str) -> tuple[Row, ...]:
    """The rows that are made together with the one of this name."""
    return tuple(row for row in ROWS if row.family == family and row.stage is not None)


def table_lines(table: int) -> dict[str, tuple[Row, ...]]:
    """Lines of a table of the paper, in its order -> their rows, whole systems before their parts."""
    lines: dict[str, list[Row]] = {}
    for row in ROWS:
        if table in row.lines:
            lines.setdefault(row.lines[table], []).append(row)
    return {line: tuple(sorted(rows, key=lambda row: row.part)) for line, rows in lines.items()}
