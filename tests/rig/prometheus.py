"""A real Prometheus with its own directory and port, and `promtool`: what it scraped, and what it answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterable

from rig.addresses import free_port
from rig.waiting import DEADLINE, until

PROGRAM = shutil.which("prometheus") or "/usr/bin/prometheus"
PROMTOOL = shutil.which("promtool") or "/usr/bin/promtool"

Result = list[dict[str, Any]]


def promtool(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `promtool`; the caller looks at its status and output."""
    command = [PROMTOOL, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=240, check=False)


def scrape_config(targets: dict[str, Iterable[str]], **more: object) -> list[dict[str, Any]]:
    """Jobs and their `host:port`s as Prometheus's configuration has them; `more` goes to each job."""
    return [{"job_name": job, "static_configs": [{"targets": list(hosts)}], **more} for job, hosts in targets.items()]


class Prometheus:
    """A running Prometheus that scrapes `targets` (job to `host:port`s) at `/metrics` every second.

    `rules` are rule files; `features` are for `--enable-feature`; `job` goes to each scrape job (`metrics_path`, `params`,
    `relabel_configs`); `config` goes to the top of the configuration (`alerting`, `remote_write`). The configuration is
    written as JSON, which is YAML.
    """

    def __init__(
        self,
        directory: Path,
        targets: dict[str, Iterable[str]],
        rules: Iterable[Path] = (),
        features: Iterable[str] = (),
        job: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        arguments: Iterable[str] = (),
    ) -> None:
        self.directory = directory
        self.address = f"127.0.0.1:{free_port()}"
        text = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": scrape_config(targets, **(job or {})),
            **(config or {}),
        }
        path = directory / "prometheus.yml"
        path.write_text(json.dumps(text, indent=1))
        command = [
            PROGRAM,
            f"--config.file={path}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={self.address}",
            *([f"--enable-feature={','.join(features)}"] if features else []),
            *arguments,
        ]
        with (directory / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            until(self._ready, "Prometheus is ready", context=self.log)
        except AssertionError:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"

    def log(self) -> str:
        """Everything that it logged."""
        return (self.directory / "prometheus.log").read_text(errors="replace")

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"prometheus ended:\n{self.log()}"
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def api(self, path: str, **parameters: object) -> Any:
        """`data` of an answer of `/api/v1/PATH`; an error is a failure that shows what Prometheus said."""
        query = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()}, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.code} {error.read().decode(errors='replace')}") from None

    def query(self, expression: str, **parameters: object) -> Result:
        """The samples that `expression` has now: each with `metric`, and `value` or `histogram`."""
        return self.api("query", query=expression, **parameters)["result"]

    def values(self, expression: str, **parameters: object) -> list[float]:
        """The numbers that `expression` has now."""
        return [float(sample["value"][1]) for sample in self.query(expression, **parameters)]

    def wait(self, expression: str, condition: Callable[[Result], object] = bool, deadline: float = DEADLINE) -> Result:
        """Waits until the samples of `expression` fulfil `condition` (default: there are some), and returns them."""
        last: list[Result] = []

        def holds() -> bool:
            last[:] = [self.query(expression)]
            return bool(condition(last[0]))

        what = f"{expression} fulfils what is waited for"
        until(holds, what, deadline, lambda: f"{last}\n{self.targets()}\n{self.log()}")
        return last[0]

    def wait_value(self, expression: str, condition: Callable[[float], object] = lambda _: True) -> float:
        """Waits until `expression` is one number that fulfils `condition`, and returns it."""
        found = self.wait(expression, lambda samples: len(samples) == 1 and condition(float(samples[0]["value"][1])))
        return float(found[0]["value"][1])

    def targets(self) -> list[dict[str, Any]]:
        """The targets that it scrapes: `labels`, `health`, `lastError` and so on."""
        return self.api("targets")["activeTargets"]

    def wait_scraped(self, times: int = 2) -> None:
        """Waits until every target was scraped `times` times without an error; `rate()` needs two."""

        def scraped() -> bool:
            counts = {sample["metric"]["instance"]: float(sample["value"][1]) for sample in self.query("sum_over_time(up[1h])")}
            targets = self.targets()
            return bool(targets) and all(counts.get(target["labels"]["instance"], 0) >= times for target in targets)

        until(scraped, f"every target was scraped {times} times", context=lambda: f"{self.targets()}\n{self.log()}")

    def good_moment(self) -> float:
        """Waits for a moment at which the last scrape of every target was good, for `query(…, time=moment)`: on a loaded
        machine any scrape can take longer than its second, and then the series have no values until the next one."""

        def found() -> float | None:
            # Scrapes that began before it have ended.
            moment = time.time() - 2
            up = [sample["value"][1] for sample in self.query("up", time=moment)]
            return moment if len(up) == len(self.targets()) and set(up) == {"1"} else None

        return until(found, "every target was scraped", context=lambda: f"{self.targets()}\n{self.log()}")

    def reload(self) -> None:
        """Has it read its configuration again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stops it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
