"""Remotes of DVC on this machine: a folder, an S3 server and an SSH server, both on loopback, for one test each."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUCKET = "bucket"
NO_S3 = "there is no S3 server here; see docs/contributing.md"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Remote:
    """A DVC remote."""

    url: str
    """Of ``dvc remote add``."""
    objects: Callable[[], dict[str, int]]
    """What lies there now: {name: bytes}."""
    options: dict[str, str] = field(default_factory=dict)
    """Of ``dvc remote modify``, which servers of one's own need."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of whoever uses it."""
    storage: Path | None = None
    """Folder of the objects, where they are files."""


def _files(folder: Path) -> dict[str, int]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found[os.path.relpath(os.path.join(parent, name), folder)] = os.path.getsize(os.path.join(parent, name))
            except FileNotFoundError:
                continue  # renamed meanwhile
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server does not listen: {log.read_text()}")
        time.sleep(0.05)


@contextmanager
def _running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    """A server, until it is no longer needed."""
    with log.open("w") as file:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_for(port, server, log)
        yield
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def folder(path: Path) -> Iterator[Remote]:
    """A folder as a remote.

    Args:
        path: a folder of its own.
    """
    storage = path / "storage"
    yield Remote(str(storage), lambda: _files(storage), storage=storage)


@contextmanager
def s3(path: Path) -> Iterator[Remote]:
    """An S3 server of the library moto, which keeps its objects in memory."""
    boto3 = pytest.importorskip("boto3", reason=NO_S3)
    pytest.importorskip("moto", reason=NO_S3)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, path / "s3.log"):
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)

        def objects() -> dict[str, int]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}

        (path / "aws").touch()  # in place of the user's own settings
        environment = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), str(path / "aws")) | CREDENTIALS
        yield Remote(f"s3://{BUCKET}/han", objects, {"endpointurl": address}, environment)


@contextmanager
def ssh(path: Path) -> Iterator[Remote]:
    """An OpenSSH server with keys of its own, and a home folder whose key it lets in."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if server is None:
        pytest.skip("no sshd here (Debian: openssh-server)")
    pytest.importorskip("dvc_ssh")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # as the service does; a server started by root asks for it
    home, storage = path / "home", path / "storage"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (path / "host_key", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    port = _free_port()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": path / "host_key",
        "AuthorizedKeysFile": home / ".ssh" / "id_ed25519.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
        "MaxStartups": "100",
        "Subsystem": "sftp internal-sftp",
    }
    (path / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    with _running([server, "-D", "-e", "-f", str(path / "sshd_config")], port, path / "sshd.log"):
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{storage}"
        yield Remote(url, lambda: _files(storage), environment={"HOME": str(home)}, storage=storage)


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Remote]]] = {"folder": folder, "s3": s3, "ssh": ssh}
"""Kind of remote -> what has one as long as it is needed, given a folder of its own."""
