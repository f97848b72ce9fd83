"""A machine that lacks something is examined to the end."""

import importlib.util

from hybridlib import StudyError, doctor
from hybridlib.sandbox import judge


def test_whatever_is_missing_is_one_line_each(monkeypatch, tmp_path):
    def refuse():
        raise StudyError("no walls\nat all")

    monkeypatch.setattr(judge, "protections", refuse)
    monkeypatch.setenv("HYBRIDLIB_HUB", str(tmp_path / "nowhere"))
    monkeypatch.setitem(doctor.CHECKS, "broken", lambda: 1 / 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lines = list(doctor.examine())
    assert len(lines) == len(doctor.CHECKS) and not any("\n" in line for line in lines)
    missing = {name for name in doctor.CHECKS for line in lines if f"missing  {name}" in line}
    assert {"unsloth", "vllm", "bitsandbytes", "sandbox", "real data", "broken"} <= missing
    assert any("requirements-unsloth.txt" in line for line in lines)
    assert any(line.startswith("ok       python") for line in lines)
