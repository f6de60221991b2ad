"""Which room may import which: the contracts in pyproject.toml, checked by import-linter."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT_FILES = 6


def rooms(repository):
    return {path.parent.name for path in (repository / "han_core").glob("*/__init__.py")}


def test_the_contracts_are_kept(repository):
    # In a process of its own: import-linter disables all loggers of the one in which it runs.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_room_has_a_contract_of_its_own(repository):
    contracts = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    named = {name.split(" -> ")[0] for contract in contracts["contracts"] if " -> " in (name := contract["name"])}
    assert named == rooms(repository) - {"cli"}


def test_a_contract_forbids_every_room_that_its_name_does_not_allow(repository):
    """The names are what people read; the lists are what is checked."""
    contracts = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    for contract in contracts["contracts"]:
        if " -> " in contract["name"]:
            room, allowed = contract["name"].split(" -> ")
            forbidden = {module.removeprefix("han_core.") for module in contract["forbidden_modules"]}
            missing = rooms(repository) - forbidden - {room}
            assert missing == set(allowed.split(", ")) - {"nothing"}, contract["name"]


def test_few_files_lie_beside_the_rooms(repository):
    assert len(list((repository / "han_core").glob("*.py"))) <= ROOT_FILES
