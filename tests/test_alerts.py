"""The rules for Prometheus: what makes each alert fire, what just does not, and where it is explained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from rig.alertmanager import amtool
from rig.prometheus import promtool

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy" / "prometheus"


def groups(name: str) -> list[dict]:
    return yaml.safe_load((RULES / name).read_text())["groups"]


ALERTS = [rule for group in groups("alerts.yml") for rule in group["rules"]]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def test_promtool_accepts_the_rules_and_the_example_configuration():
    for arguments in (["check", "rules", RULES / "recording.yml", RULES / "alerts.yml"],
                      ["check", "config", RULES / "prometheus.yml"]):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_and_does_not_fire_just_below():
    tested = promtool("test", "rules", RULES / "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("threshold, status", [("0.9", 0), ("0.89", 1), ("0.93", 1)])
def test_the_tests_of_alerts_notice_another_threshold(tmp_path, threshold, status):
    shutil.copy(RULES / "recording.yml", tmp_path)
    rules = (RULES / "alerts.yml").read_text()
    assert rules.count("(rwsgi_saturation[5m]) > 0.9\n") == 1
    (tmp_path / "alerts.yml").write_text(rules.replace("(rwsgi_saturation[5m]) > 0.9\n", f"(rwsgi_saturation[5m]) > {threshold}\n"))
    tests = yaml.safe_load((RULES / "alerts.test.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"] == "saturation"]
    (tmp_path / "alerts.test.yml").write_text(yaml.safe_dump(tests))
    tested = promtool("test", "rules", tmp_path / "alerts.test.yml")
    assert tested.returncode == status, tested.stdout + tested.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_test_above_and_below(name):
    firing, tests = set(), yaml.safe_load((RULES / "alerts.test.yml").read_text())["tests"]
    below = False
    for test in tests:
        cases = [case for case in test["alert_rule_test"] if case["alertname"] == name]
        for alert in [alert for case in cases for alert in case["exp_alerts"]]:
            expected = alert["exp_labels"]
            firing.add((expected["severity"], expected.get("window")))
            assert expected.get("instance", expected["job"]).startswith("above"), alert
        below |= bool(cases) and any('"below' in series["series"] for series in test["input_series"])
    labels = [rule["labels"] for rule in ALERTS if rule["alert"] == name]
    assert firing == {(each["severity"], each.get("window")) for each in labels}
    assert below, f"no test has a case of {name} that is just below"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"] + rule["labels"].get("window", ""))
def test_an_alert_says_what_was_seen_and_where_it_is_explained(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{ $labels.job }}" in rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/runbook.md" and anchor == rule["alert"].lower()


def test_the_runbook_has_a_paragraph_for_each_alert_and_no_other():
    text = (ROOT / "docs" / "runbook.md").read_text()
    paragraphs = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(paragraphs) == NAMES
    for name, paragraph in paragraphs.items():
        meaning, confirm, do = re.split(r"^\*(?:Confirm|Do)\.\*", paragraph, flags=re.MULTILINE)
        assert all(len(part.split()) >= 8 for part in (meaning, confirm, do)), name
    for link in re.findall(r"\]\(#(\w+)\)", text):
        assert link in [name.lower() for name in NAMES]


def test_the_page_has_the_table_of_alerts():
    table = (ROOT / "docs" / "prometheus.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(runbook\.md#(\w+)\) \| (\w+) \|", table, re.MULTILINE)
    wanted = dict.fromkeys((rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in ALERTS)
    assert rows == list(wanted)


def test_amtool_accepts_the_example_configuration_of_alertmanager():
    checked = amtool("check-config", RULES / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
