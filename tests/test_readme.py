"""Every snippet of the README runs, against the emulator, in the order of the text."""

import re
import shutil
from pathlib import Path

import pytest

from agentrun_transports.emulator import Emulator

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^## ([^\n]+)$|^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def snippets():
    sections: dict[str, list[str]] = {}
    section = ""
    for heading, code in BLOCKS:
        if heading:
            section = heading
        else:
            sections.setdefault(section, []).append(code)
    return sections


def test_each_kind_of_user_has_a_snippet():
    assert set(snippets()) == {"Call it", "Embed it", "Vendor it", "The emulator"}


@pytest.mark.parametrize("section", sorted(snippets()))
def test_snippets_run(section, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.csv").write_text("a,b\n1,2\n")
    shutil.copytree(ROOT / "src" / "agentrun_proto", tmp_path / "my_sdk" / "_agentrun")
    (tmp_path / "my_sdk" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with Emulator() as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        scope: dict[str, object] = {}
        for code in snippets()[section]:
            exec(compile(code, f"README.md: {section}", "exec"), scope)
    printed = capsys.readouterr().out
    if section == "Call it":
        assert "\n4\n" in printed, "three more than the one that was created"
        assert printed.endswith("SUCCESS\n"), "what happens on the way is printed before it"
    assert {
        "Call it": "first 1 8\n404",
        "Embed it": "https://123-ram.agentrun-data.cn-hangzhou.aliyuncs.com/2025-09-10/agents/resources?limit=10\n"
        "{'data': {'items': []}}",
        "Vendor it": "POST https://123.agentrun-data.cn-hangzhou.aliyuncs.com/sandboxes [",
        "The emulator": "0\n",
    }[section] in printed
