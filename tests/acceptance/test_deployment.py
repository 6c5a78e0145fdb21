"""The files on the page about deployment are ones that their programs take."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.fleet.page import PAGE, block, placed
from tests.support.pages import IS_CHECKOUT
from tracker.collector.app import create_app
from tracker.collector.main import cli
from tracker.collector.settings import Settings
from tracker.collector.store import Store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not IS_CHECKOUT, reason="the page is not here")

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


def unit() -> str:
    return block("ini", "# /etc/systemd/system/tracker-collector.service")


def options(words: list[str]) -> dict[str, Any]:
    """Return what ``serve`` makes of a command line."""
    assert words[0].endswith("tracker-collector")
    assert words[1] == "serve"
    command = cli.commands["serve"]
    return dict(command.make_context("serve", words[2:], resilient_parsing=False).params)


def unit_options() -> dict[str, Any]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit(), re.MULTILINE)
    return options(shlex.split(line))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong with it."""
    (tmp_path / "tracker-collector").touch(mode=0o755)
    path = tmp_path / "tracker-collector.service"
    path.write_text(placed(unit(), {"/opt/tracker/bin": str(tmp_path)}))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "Failed to" in done.stderr and str(path) not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr, done.stderr


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
@pytest.mark.parametrize("number", [0, 1])
def test_haproxy_takes_its_files(number: int, tmp_path: Path) -> None:
    """`haproxy -c` finds nothing wrong with them."""
    text = PAGE.code("haproxy")[number].replace(" ssl crt /etc/haproxy/collector.pem", "")
    path = tmp_path / "haproxy.cfg"
    path.write_text(text)
    done = subprocess.run([str(HAPROXY), "-c", "-f", str(path)], check=False,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_runs_what_the_unit_runs(tmp_path: Path) -> None:
    """The same options; probes ask paths that are there; one replica may always be missing."""
    found = {each["kind"]: each["spec"] for each in yaml.safe_load_all(block("yaml", "# kubectl"))}
    deployment = found["Deployment"]
    labels = deployment["template"]["metadata"]["labels"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    pods, machines = options(container["command"]), unit_options()
    key = pods.pop("key_file")
    del machines["key_file"]
    assert pods == machines
    assert pods["replicas"] == deployment["replicas"]
    assert str(key).startswith(container["volumeMounts"][0]["mountPath"])
    assert pod["terminationGracePeriodSeconds"] > pods["drain_seconds"] + 10
    store = Store(tmp_path / "collector.sqlite3")
    paths = create_app(store, Settings()).openapi()["paths"]
    store.close()
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["ports"][0] == {"name": "http", "containerPort": pods["port"]}
    assert found["PodDisruptionBudget"]["minAvailable"] < deployment["replicas"]
    assert found["Service"]["selector"] == labels
    assert found["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    assert deployment["selector"]["matchLabels"] == labels


def test_a_commit_waits_for_a_standby_as_patroni_is_set_up() -> None:
    """Without the strict mode, a leader alone would give receipts for what only it has."""
    settings = yaml.safe_load(block("yaml", "# /etc/patroni/config.yml"))["bootstrap"]["dcs"]
    assert settings["synchronous_mode"] is True
    assert settings["synchronous_mode_strict"] is True
    assert settings["loop_wait"] + 2 * settings["retry_timeout"] <= settings["ttl"]


def test_the_table_of_sizes_follows_from_what_was_measured() -> None:
    """Each figure is the page's own arithmetic."""
    section = PAGE.section("Sizes")
    (per_batch, per_event) = zip(
        *(numbers(line) for line in re.findall(r"^\| (?:collector|PostgreSQL|write).*$", section,
                                               re.MULTILINE)[:3]),
        strict=True,
    )  # fmt: skip
    (disk,) = numbers(*re.findall(r"^\| disk, each copy .*$", section, re.MULTILINE))
    lines = re.findall(r"^\|.*MB/s.*TB \|$", section, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        events, batches, *shown = numbers(line)[-6:]
        cores = [batches * per_batch[row] / 1e3 + events * per_event[row] / 1e6 for row in range(2)]
        log = (batches * per_batch[2] + events * per_event[2]) / 1e6
        assert shown == pytest.approx([*cores, log, events * disk * 86_400 / 1e12], rel=0.03), line


def numbers(line: str) -> list[float]:
    """Return the numbers in the cells of a line, the first cell apart."""
    return [float(found.replace(",", ""))
            for cell in line.strip("|").split("|")[1:]
            for found in re.findall(r"\d[\d,]*(?:\.\d+)?", cell)]  # fmt: skip
