"""Whether a row's settings were chosen on the clips that it is scored on, and which were chosen inside the training
groups."""

from collections.abc import Mapping

from han_core.report.document import Block, Fold, Heading, Paragraph, Table
from han_core.rows import Row, by_name
from pipeline.chosen import in_words, read_choices, section_of
from pipeline.params import NOTHING_CHOSEN, Params
from pipeline.paths import choices_file

NOTHING = "nothing chosen"
INSIDE = "chosen inside the training groups"
ON_TEST = "chosen on the clips it is scored on"
ABOUT_SETTINGS = (
    f"Settings: where those of a row come from. “{NOTHING}”: from the paper, or fixed before any of these clips was "
    f"scored. “{INSIDE}”: by inner folds of each split's training clips, which see no test clip. “{ON_TEST}”: somebody "
    "looked at these test clips and kept what did best (report.tuned), so the figure is too good by an unknown amount."
)


def settings_column(params: Params) -> str:
    """Header of the column: it is about this dataset, whatever others stand beside it."""
    return f"settings ({params.dataset.name})"


def settings_of(params: Params, summaries: Mapping[str, Mapping[str, dict]], name: str) -> str:
    """Which of the three a row is; "-" for one that has no figures of this dataset, or that nobody knows."""
    row = by_name(name)
    if row is None or name not in summaries.get(params.dataset.name, {}):
        return "-"
    row = by_name(row.ensemble_of) or row
    if row.name in params.report.tuned:
        return ON_TEST
    return INSIDE if _inside(params, row) else NOTHING


def _inside(params: Params, row: Row) -> bool:
    if row.stage == "classify":  # HAN and its variants
        return params.train.chosen != NOTHING_CHOSEN
    return row.family == "stacked" and len(params.stacked.penalties) > 1  # held-out training groups choose


def chosen_settings(params: Params) -> list[Block]:
    """What ``train.chosen`` put in place of the params, by model and split; nothing where it is not in force.

    Raises:
        ChoicesError: the file cannot be used.
    """
    if params.train.chosen == NOTHING_CHOSEN:
        return []
    path = choices_file(params.train.chosen)
    choices = read_choices(path, params.train)
    rows = []
    for model in params.models:
        section = section_of(choices, model)
        for split in params.splits:
            choice = choices.chosen.get(section, {}).get(f"split_{split}")
            rows.append([model, str(split), in_words(choice.settings) if choice else "-", section])
    text = f"By {path}; docs/selection.md says how. They stand in place of those of group train among the params below."
    table = Table(["Model", "split", "settings", "chosen for"], rows, words=[2, 3])
    return [Heading("Chosen settings"), Paragraph(text), Fold("By model and split", [table])]
