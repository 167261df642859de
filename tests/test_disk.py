"""What is written so that a crash leaves the old file or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_store import disk


@pytest.mark.parametrize("way", ["text", "private", "whole"])
def test_a_new_name_is_on_the_disk_when_writing_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    target, sync = tmp_path / "keys.json", disk.sync
    synced: list[tuple[Path, bool]] = []

    def noted(path: Path) -> None:
        synced.append((path, target.exists()))
        sync(path)

    monkeypatch.setattr(disk, "sync", noted)
    match way:
        case "text":
            disk.write_text(target, "{}")
        case "private":
            disk.write_private(target, "{}")
        case _:
            disk.make_whole(target, lambda path: disk.write_text(path, "{}"))
    assert target.read_text() == "{}" and [*tmp_path.iterdir()] == [target]
    assert synced[-1] == (tmp_path, True)
