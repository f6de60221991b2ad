"""Lines on standard output: UTF-8 in every locale, and a plain sentence where they cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PRINTS = """
import sys
import click
from han_core.cli.output import print_json
@click.command()
@click.argument("name")
def main(name):
    print_json({"name": name})
main()
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FULL = Path("/dev/full")


def printed(name, *, stdout=subprocess.PIPE, **locale):
    command = [sys.executable, "-c", PRINTS, name]
    # A person's standard output has a buffer, of which Python writes the rest at its end.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | locale
    return subprocess.run(command, env=env, stdout=stdout, stderr=subprocess.PIPE, check=False)


@pytest.mark.parametrize(
    "locale",
    [{"PYTHONUTF8": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["utf8", "ascii"],
)
@pytest.mark.parametrize("name", ["ü.mp4".encode(), b"bad\xff.mp4", "ü".encode() + b"\xff\xfe", b'"\\'])
def test_a_name_comes_back_from_json_in_utf8(locale, name):
    done = printed(name, **locale)
    line = done.stdout.decode("utf-8")
    assert json.loads(line)["name"].encode("utf-8", "surrogateescape") == name, done.stderr
    assert ("ü" in line) == name.startswith("ü".encode()), "letters stay readable"


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_sentence():
    with FULL.open("wb") as full:
        done = printed("a", stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode() == "Error: standard output cannot be written (No space left on device)\n"


def test_a_reader_that_has_gone_is_no_error_to_tell():
    read, write = os.pipe()
    os.close(read)
    done = printed("a", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
