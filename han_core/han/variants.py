"""What the rows of the paper's tables that are a HAN (``han_core/rows.py``) are made of, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """One row of Table 1, or the row [15] of Table 2."""

    streams: tuple[str, ...]
    source: Literal["cubes", "fc"] = "cubes"
    attention: bool = True
    fixed: Mapping[str, str | int] = field(default_factory=dict)
    """Fields of the config that are part of what the variant is, whatever the settings say."""

    def array(self, fc: str) -> str:
        """The array of the cube files that it reads, which hold the fully connected layer ``fc`` beside the cubes."""
        return fc if self.source == "fc" else "cubes"

    @property
    def pooled(self) -> bool:
        """Its cubes may be averaged over the regions while they are read, where all regions count the same: the same
        result at 1/196 of the memory."""
        return self.source == "cubes" and not self.attention


VARIANTS: dict[str, Variant] = {
    "han": Variant(("spatial", "temporal")),
    "no_attention": Variant(
        ("spatial", "temporal"),
        attention=False,
    ),
    "fc_features": Variant(
        ("spatial", "temporal"),
        "fc",
        attention=False,
    ),
    "spatial": Variant(("spatial",)),
    "temporal": Variant(("temporal",)),
    "soft_attention_lstm": Variant(
        ("spatial",),
        fixed={"attention": "content", "layers": 1, "initial_state": "mean"},
    ),
}
"""Table 1 by name, then the row of Table 2 that attends: scores from content, one LSTM, h_0 from the mean feature."""
