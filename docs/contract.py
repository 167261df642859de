"""Fill the README's table of engines with what tests/test_contract.py finds.

make contract
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from agent.settings import ROOT
from index_store.disk import write_text

ENGINES = ("huggingface", "llama_cpp", "openai_like")
BEGIN, END = "<!-- contract -->", "<!-- /contract -->"


def labels() -> dict[str, str]:
    """What a row says, by the name of its test."""
    tree = ast.parse((ROOT / "tests" / "test_contract.py").read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        if said := ast.get_docstring(node):
            found[node.name] = said.partition("\n")[0]
    return found


def run() -> dict[tuple[str, str], bool]:
    """Whether each test passed on each engine, all its cases together."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests/test_contract.py", "-k", "not readme"]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    passed: dict[tuple[str, str], bool] = {}
    for case in cases:
        name, _, which = (case.get("name") or "").partition("[")
        for engine in ENGINES:
            if engine in which:
                good = not any(child.tag in ("failure", "error", "skipped") for child in case)
                passed[name, engine] = passed.get((name, engine), True) and good
    return passed


def main() -> None:
    passed = run()
    rows = [f"| | {' | '.join(f'`{engine}`' for engine in ENGINES)} |", "|---|---|---|---|"]
    for name, said in labels().items():
        marks = ["yes" if passed[name, engine] else "no" for engine in ENGINES]
        rows.append(f"| {said} | {' | '.join(marks)} |")
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(readme, f"{before}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
