"""What `make` installs: the plain GPU install is small, and there is one on every machine."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from agent.settings import ROOT

from outside import needs


def wanted(extra: str, machine: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = [Requirement(each) for each in project["optional-dependencies"][extra]]
    here = {"platform_machine": machine}
    return {r.name for r in listed if r.marker is None or r.marker.evaluate(here)}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_machine_gets_exactly_one_faiss(machine: str) -> None:
    assert wanted("cpu", machine) == {"faiss-cpu"}
    assert wanted("gpu", machine) == {"faiss-cpu", "bitsandbytes"}
    faiss = "faiss-gpu" if machine == "x86_64" else "faiss-cpu"
    assert wanted("gpu-search", machine) == {faiss, "bitsandbytes"}


@needs("make", shutil.which("make"))
@pytest.mark.parametrize(
    ("given", "card", "extra"),
    [([], False, "cpu"), ([], True, "gpu"), (["EXTRA=gpu-search"], True, "gpu-search")],
)
def test_make_takes_the_extra_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], card: bool, extra: str
) -> None:
    for name in ("make", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    if card:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["make", "--dry-run", "--always-make", ".venv/installed", *given]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--editable '.[{extra}]'" in said
