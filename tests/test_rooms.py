"""Which room may import which: the contracts in pyproject.toml, checked by import-linter."""

import tomllib

from importlinter.cli import lint_imports

ROOT_FILES = 6


def rooms(repository):
    return {path.parent.name for path in (repository / "han_core").glob("*/__init__.py")}


def test_the_contracts_are_kept(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    broken = lint_imports(config_filename=str(repository / "pyproject.toml"), no_cache=True)
    assert not broken, capsys.readouterr().out


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
