"""The command ``han``: tools beside the stages."""

from importlib import import_module

import click

_COMMANDS = {
    "cache": ("han_core.cli.cache", "List, verify and prune the cache of finished clip files and nets."),
    "flow": ("han_core.cli.flow", "Show the optical flow of a video as a picture or a video."),
    "pull-for": ("han_core.cli.pull_for", "Pull from the DVC remote what a stage reads."),
    "store": ("han_core.cli.store", "Look into, verify and export stores of feature cubes."),
    "predict": ("han_core.cli.predict", "Say what happens in videos, and show where the model looked."),
}
"""Name of each command -> the module that holds it under the same name (``_`` for ``-``), and what it does. The modules
are imported when they are used: some need seconds."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Commands)
@click.version_option(package_name="han-video", prog_name="han")
def main() -> None:
    """Tools of the Hierarchical Attention Network: labels for videos, cached files, stores of cubes, optical flow."""
