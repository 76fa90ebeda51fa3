"""The dashboard and the alert rules name only what a running controller exports."""
import json
import pathlib
import re
import shutil
import subprocess

import promql_parser as promql
import pytest
import yaml

from conftest import ROOT, fetch

DASHBOARD = ROOT / "packaging/grafana/kvatlas.json"
ALERTS = ROOT / "packaging/prometheus/alerts.yaml"
# Prometheus adds these to every series, and `up` by itself.
SCRAPED = {"job", "instance"}


def dashboard_expressions():
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])
        if found:
            yield variable["name"], found[1]


def alert_rules():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def selectors(expression):
    """Names and matchers of every selector, however deep."""
    def walk(node):
        if isinstance(node, promql.VectorSelector):
            yield node
        elif isinstance(node, promql.MatrixSelector):
            yield from walk(node.vector_selector)
        else:
            for part in ("lhs", "rhs", "expr"):
                inner = getattr(node, part, None)
                if inner is not None:
                    yield from walk(inner)
            args = getattr(node, "args", None)
            for inner in args or []:
                yield from walk(inner)
    return list(walk(promql.parse(expression)))


def is_exported(selector, exported):
    def fits(labels):
        for matcher in selector.matchers.matchers:
            value = labels.get(matcher.name, "")
            if matcher.name in SCRAPED:
                continue
            op = str(matcher.op)
            if op.endswith("NotEqual"):
                good = value != matcher.value
            elif op.endswith("Equal"):
                good = value == matcher.value
            elif op.endswith("NotRe"):
                good = not re.fullmatch(matcher.value, value)
            else:
                good = re.fullmatch(matcher.value, value) is not None
            if not good:
                return False
        return True
    return any(name == selector.name and fits(labels) for name, labels in exported)


def test_every_metric_of_the_dashboard_is_exported(exported):
    named = [(title, selector) for title, text in dashboard_expressions() for selector in selectors(text)]
    assert len(named) > 30
    assert [(title, str(s.name)) for title, s in named if not is_exported(s, exported)] == []


def test_every_metric_of_the_alerts_is_exported(exported):
    named = [(rule["alert"], s) for rule in alert_rules() for s in selectors(rule["expr"]) if s.name != "up"]
    assert len(named) > 12
    assert [(alert, str(s.name)) for alert, s in named if not is_exported(s, exported)] == []


def test_a_metric_that_is_not_there_is_noticed(exported):
    """The check itself can fail: on the name, on a label, under a function."""
    for text in ("rate(kvatlas_bogus_total[1m])", 'kvatlas_lookups_total{result="bogus"}',
                 'sum(rate(kvatlas_lookups_total{result!~"hit|miss"}[1m])) > 0'):
        (selector,) = selectors(text)
        assert not is_exported(selector, exported), text
    (selector,) = selectors('sum by (x) (rate(kvatlas_lookups_total{result=~"hit|x"}[1m])) > 0')
    assert is_exported(selector, exported)


def test_the_dashboard_is_what_its_script_writes():
    script = ROOT / "packaging/grafana/make.py"
    written = subprocess.run(["python3", script], check=True, capture_output=True, text=True).stdout
    assert DASHBOARD.read_text() == written, "run packaging/grafana/make.py > packaging/grafana/kvatlas.json"


def test_every_alert_leads_to_a_chapter_of_the_runbook():
    for rule in alert_rules():
        page, anchor = rule["annotations"]["runbook"].split("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.M)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{rule['alert']}: {page} has no #{anchor}"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_plays_the_alerts():
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=pathlib.Path(ALERTS).parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_can_read_the_metrics(controller):
    """Lints about names are upstream's to answer for; a page that does not parse is not."""
    done = subprocess.run(["promtool", "check", "metrics"], input=fetch(f"{controller}/metrics"), capture_output=True, text=True)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("lmcache:")]
    assert ours == []
