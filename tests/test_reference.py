"""What is generated from the code is not stale, and what documents link is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.settings import PREFIX, ROOT, Settings
from docs import reference


def test_the_files_say_what_the_code_says() -> None:
    assert list(reference.stale()) == [], "run `make reference`"


def test_a_file_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "env_example", lambda: "# another\n")
    assert reference.stale() == {ROOT / ".env.example": "# another\n"}


def test_every_setting_is_told_with_its_default() -> None:
    told = dict(re.findall(r"^# (MEDRAFT_\w+)=(.*)$", reference.env_example(), re.MULTILINE))
    assert set(told) == {PREFIX + name.upper() for name in Settings.model_fields}
    assert told["MEDRAFT_HOME"] == ".medraft" and told["MEDRAFT_SOURCES"] == "2"
    assert all(field.description for field in Settings.model_fields.values())


def test_every_command_is_told() -> None:
    told = reference.cli()
    for name in ("setup", "index search", "finetune export", "evaluate router"):
        assert f"\n## medraft {name}\n" in told


def test_a_commit_is_checked_by_what_make_check_runs() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    run = re.findall(r"^\t@\$\(BIN\)/(.+)$", recipe[1], re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ +entry: \.venv/bin/(.+)$", hooks, re.MULTILINE) == run
    assert len(run) == 5


DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_is_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []
