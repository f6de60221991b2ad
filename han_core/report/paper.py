"""The figures that the paper prints, to stand beside measured ones. Mean top-1 over three splits, in per cent."""

from dataclasses import dataclass

DATASETS = ("ucf101", "hmdb51")
TITLES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51"}


@dataclass(frozen=True)
class Row:
    """One row of a table of the paper."""

    title: str
    figures: dict[str, float]
    """Dataset -> per cent; a dataset that the paper leaves out is left out."""
    ours: tuple[str, ...] = ()
    """Names of the rows of ``evaluate`` that are this method, or a part of it."""


def _row(title: str, ucf101: float | None, hmdb51: float | None, *ours: str) -> Row:
    figures = {"ucf101": ucf101, "hmdb51": hmdb51}
    return Row(title, {name: value for name, value in figures.items() if value is not None}, ours)


TABLE_1 = (
    _row("Full HAN: spatial cube + temporal cube", 92.7, 64.3, "han"),
    _row("HAN without attention (1): both cubes, no attention", 90.6, 62.0, "no_attention"),
    _row("HAN without attention (2): spatial 4096 + temporal 4096", 91.1, 62.7, "fc_features"),
    _row("Spatial HAN: spatial cube only", 75.1, 47.7, "spatial"),
    _row("Temporal HAN: temporal cube only", 85.4, 58.3, "temporal"),
)
TABLE_2 = (
    _row("HOG", 72.4, 40.2),
    _row("iDT [19]", 85.9, 57.2),
    _row("iDT + stacked Fisher vectors [13]", None, 66.8),
    _row("Spatio-temporal CNN [10]", 65.4, None),
    _row("Two-stream CNN [16]", 88.0, 59.4, "two_stream", "two_stream_svm", "spatial_net", "temporal_net"),
    _row("Two-stream CNN + LSTM [22]", 88.6, None),
    _row("Two-stream + iDT (TDD) [20]", 91.5, 65.9),
    _row("Soft attention + LSTM [15]", 84.96, 41.3, "soft_attention_lstm"),
    _row("HAN", 92.7, 64.3, "han"),
)
