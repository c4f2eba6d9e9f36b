"""The Dockerfiles of deploy/docker, built by podman on a root of Debian's packages, and run as the Deployment of
deploy/kubernetes asks: another user, a root that cannot be written to, no capabilities, the seccomp profile of the runtime.

What is not built here is the stage that compiles: it installs the wheels that tests/run has built. The script
deploy/docker/check builds that stage too."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from rig.containers import ROOT, Container, Missing, Podman, Refused, limits
from rig.waiting import until

pytestmark = [pytest.mark.only_rwsgi(why="this is rwsgi's"), pytest.mark.timeout(600)]

DOCKER = ROOT / "deploy" / "docker"
# What Debian's own Python is called by the Dockerfile: its packages make the base image here.
PYTHON = "3.11"
BASE = f"docker.io/library/python:{PYTHON}-slim-bookworm"
SERVER = "localhost/rwsgi:0.1"
APP = "localhost/rwsgi-app:1"
DEPLOYMENT = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "manifests" / "deployment.yaml").read_text())
HTTP, PROBE, STATS = 8080, 9190, 9191


@pytest.fixture(scope="module")
def podman() -> Podman:
    try:
        podman = Podman(ROOT / "target" / "podman")
        podman.clean()
        podman.base(BASE)
        podman.try_out(BASE)
    except Refused as what:
        pytest.skip(str(what))
    except Missing as what:
        # tests/run installs it where it can, as CI can.
        assert "CI" not in os.environ, what
        pytest.skip(str(what))
    yield podman
    podman.clean()
    podman("image", "prune", "--force")


@pytest.fixture(scope="module")
def server_image(podman, tmp_path_factory) -> str:
    """The image of the server, with the wheels that tests/run left."""
    context = tmp_path_factory.mktemp("built")
    (context / "wheels").mkdir()
    built = ROOT / "target" / "wheels"
    wheels = [*built.glob(f"rwsgi-*-cp{PYTHON.replace('.', '')}-*.whl"), *built.glob("rwsgi_top-*.whl")]
    if len(wheels) != 2:
        pytest.skip(f"the tests have been built for another Python than {PYTHON}, which the base image has")
    for wheel in wheels:
        shutil.copy(wheel, context / "wheels")
    podman.build(ROOT, DOCKER / "Dockerfile", SERVER, f"--build-context=wheels={context}", PYTHON=PYTHON)
    return SERVER


@pytest.fixture(scope="module")
def app_image(podman, server_image) -> str:
    podman.build(DOCKER / "app", DOCKER / "app" / "Dockerfile", APP)
    return APP


@pytest.fixture
def start(podman):
    """Starts containers for one test."""
    running = []

    def started(*arguments, **options) -> Container:
        running.append(Container(podman, *arguments, **options))
        return running[-1]

    yield started
    for container in running:
        container.remove()


def as_the_kubelet_would(deployment: dict, empty: Path) -> tuple[list[str], tuple[str, ...]]:
    """A pod's only container as options of podman, with directories in `empty` as its volumes, and its arguments. What is not
    known here is an error."""
    pod = copy.deepcopy(deployment["spec"]["template"]["spec"])
    (spec,) = pod.pop("containers")
    for of_the_cluster in ("terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"):
        pod.pop(of_the_cluster)
    pod.pop("topologySpreadConstraints")
    identity = pod.pop("securityContext")
    own = spec["securityContext"]
    assert identity.pop("seccompProfile") == {"type": "RuntimeDefault"}, "what podman has unless it is told otherwise"
    assert identity.pop("runAsNonRoot") and identity.pop("fsGroup") == identity["runAsGroup"]
    options = ["--user", f"{identity.pop('runAsUser')}:{identity.pop('runAsGroup')}"]
    if own["readOnlyRootFilesystem"]:
        # Without the file systems that podman puts over /tmp and /run.
        options += ["--read-only", "--read-only-tmpfs=false"]
    if not own["allowPrivilegeEscalation"]:
        options += ["--security-opt", "no-new-privileges"]
    options += [f"--cap-drop={capability.lower()}" for capability in own["capabilities"]["drop"]]
    limits = spec["resources"]["limits"]
    options += ["--cpus", limits["cpu"], "--memory", limits["memory"].replace("Mi", "m").replace("Gi", "g")]
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod.pop("volumes"))
    for mount in spec["volumeMounts"]:
        directory = empty / mount["name"]
        directory.mkdir()
        directory.chmod(0o777)
        options += ["--volume", f"{directory}:{mount['mountPath']}"]
    assert not pod and not identity, f"the test does not know {pod} {identity}"
    return options, tuple(spec["args"])


def changed(arguments: tuple[str, ...], **values: object) -> tuple[str, ...]:
    """The arguments with other values of these options."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    given = [(argument, argument.removeprefix("--").partition("=")[0]) for argument in arguments]
    return tuple(f"--{option}={names[option]}" if option in names else argument for argument, option in given)


def ready(container: Container) -> None:
    """Waits as the startup probe does."""
    until(lambda: container.get(PROBE, "/-/ready")[0] == 200, "the application is ready", context=lambda: container.log)


# --- What the images are


def test_the_image_runs_as_a_user_and_stops_by_the_signal_that_finishes_requests(podman, app_image):
    config = podman.image(app_image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["rwsgi"], "a shell would not pass the signal on"
    assert set(config["ExposedPorts"]) == {f"{port}/tcp" for port in (HTTP, PROBE, STATS)}
    assert config["WorkingDir"] == "/app"


def test_nothing_of_the_build_is_left_in_the_image(podman, app_image):
    found = podman(
        "run", "--rm", "--network", "none", *limits(), "--user", "0", "--entrypoint", "find", app_image,
        *("/", "-xdev", "(", "-path", "/wheels*", "-o", "-name", "gcc*", "-path", "/usr/bin/*", "-o", "-name", "cargo", "-o"),
        *("-path", "/root/.cache/*", ")", "-print"),
    )  # fmt: skip
    assert found == ""


def test_the_server_cannot_write_to_what_it_runs(podman, app_image):
    writable = podman(
        "run", "--rm", "--network", "none", *limits(), "--entrypoint", "find", app_image,
        *("/venv", "/packages", "/app", "-writable", "-not", "-type", "l", "-print"),
    )  # fmt: skip
    assert writable == ""


def test_the_context_is_the_sources_and_nothing_else(podman, tmp_path):
    """What .dockerignore lets through: what pip builds the wheels from, no build and no secrets that lie about."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /context/\n")
    podman.build(ROOT, tmp_path / "Dockerfile", "localhost/rwsgi-context")
    image = podman("image", "mount", "localhost/rwsgi-context").strip()
    try:
        context = Path(image) / "context"
        there = {path.name for path in context.iterdir()}
        assert there == {"Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "bench", "server", "shared", "top"}
        members = re.search(r"^members = \[(.*)\]$", (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        for member in re.findall(r'"([^"]+)"', members):
            assert (context / member / "Cargo.toml").is_file(), f"cargo looks for every member of the workspace: {member}"
        assert not [path for path in context.rglob("*") if path.suffix in (".so", ".pyc") or path.name in ("target", ".git")]
    finally:
        podman("image", "unmount", "localhost/rwsgi-context")
        podman("rmi", "localhost/rwsgi-context")


def test_what_changes_is_in_the_image_that_is_built_again(podman, server_image, tmp_path):
    """Builders keep what they think has not changed."""
    context = shutil.copytree(DOCKER / "app", tmp_path / "app")
    for secret in (".env", ".git/config", ".venv/bin/python"):
        (context / secret).parent.mkdir(parents=True, exist_ok=True)
        (context / secret).write_text("secret")
    tag = "localhost/rwsgi-changed:1"
    for version in ("0.13.3", "0.13.4"):
        (context / "requirements.txt").write_text(f"bottle=={version}\n")
        podman.build(context, context / "Dockerfile", tag)
        command = ("--entrypoint", "python3", tag, "-c", "import bottle; print(bottle.__version__)")
        assert podman("run", "--rm", "--network", "none", *limits(), *command).strip() == version
    there = podman("run", "--rm", "--network", "none", *limits(), "--entrypoint", "find", tag, "/app", "-type", "f")
    assert sorted(there.split()) == ["/app/app.py", "/app/requirements.txt", "/app/rwsgi.ini"], "what lies about stays out"
    podman("rmi", tag)


def test_what_a_killed_run_has_left_is_removed_by_the_next(podman, app_image):
    left = Container(podman, app_image)
    mount = podman("image", "mount", app_image).strip()
    podman.clean()
    assert not Path(f"/proc/{left.pid}").exists()
    assert podman("ps", "--all", "--quiet") == ""
    assert mount not in Path("/proc/self/mounts").read_text()


# --- The server in them


def test_the_image_alone_serves_and_is_healthy(start, podman, app_image, tmp_path):
    # A proxy is for the application's own requests, and a file of its own is no part of the check.
    own = tmp_path / "ssl.py"
    own.write_text('import sys\nif "-c" in sys.orig_argv:\n    1 / 0\nraise ImportError\n')
    container = start(app_image, "--env=http_proxy=http://127.0.0.1:9", f"--volume={own}:/app/ssl.py:ro")
    ready(container)
    assert container.get(HTTP, "/") == (200, "Hello\n")

    def is_healthy() -> bool:
        # Podman gives up after three seconds, which the interpreter alone may take on a busy machine.
        try:
            podman("healthcheck", "run", container.id)
        except AssertionError:
            return False
        return True

    until(is_healthy, "it is healthy", context=lambda: container.log)
    # And the check can fail: the same image, with the probe elsewhere.
    other = start(app_image, arguments=("--ini=/app/rwsgi.ini", "--probe=127.0.0.1:9999"))
    until(lambda: other.get(9999, "/-/ready")[0] == 200, "the application is ready", context=lambda: other.log)
    with pytest.raises(AssertionError):
        podman("healthcheck", "run", other.id)


def test_the_server_runs_as_the_deployment_asks(start, app_image, tmp_path):
    options, arguments = as_the_kubelet_would(DEPLOYMENT, tmp_path)
    container = start(app_image, *options, arguments=arguments)
    ready(container)
    assert container.get(PROBE, "/-/live")[0] == 200
    assert container.get(HTTP, "/") == (200, "Hello\n")

    status = Path(f"/proc/{container.pid}/status").read_text()
    assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert container.run("touch", "/app/x").returncode != 0
    assert container.run("touch", "/tmp/x").returncode == 0

    # A body that goes to a file, whose directory is a volume.
    assert container.get(HTTP, "/", "--data-binary", "@" + __file__, "-H", "Transfer-Encoding: chunked")[0] == 405
    status, metrics = container.get(STATS, "/metrics")
    assert status == 200
    assert re.search(r"^rwsgi_ready 1(\.0)?$", metrics, re.MULTILINE)
    assert re.search(r"^rwsgi_saturation \S+$", metrics, re.MULTILINE)
    # rtop and `rwsgi ctl` of the image, as `kubectl exec` would start them.
    assert container.run("rwsgi", "ctl", "--control", "/run/rwsgi/control.sock", "stats").returncode == 0
    assert container.run("rtop", "--version").returncode == 0


def test_workers_and_memory_follow_the_limits_of_the_container(start, app_image, tmp_path):
    options, arguments = as_the_kubelet_would(DEPLOYMENT, tmp_path)
    options[options.index("--cpus") + 1] = "1"
    container = start(app_image, *options, arguments=arguments)
    ready(container)
    _, metrics = container.get(STATS, "/metrics")
    assert len(re.findall(r"^rwsgi_worker_up\{", metrics, re.MULTILINE)) == 1
    (limit,) = re.findall(r"^rwsgi_cgroup_memory_limit_bytes (\S+)$", metrics, re.MULTILINE)
    assert float(limit) == 1 << 30


def test_a_pod_that_is_told_to_leave_serves_until_balancers_know_and_then_exits_well(start, app_image, tmp_path):
    """What the kubelet does: SIGTERM, while requests still come."""
    options, arguments = as_the_kubelet_would(DEPLOYMENT, tmp_path)
    container = start(app_image, *options, arguments=changed(arguments, drain_delay=600))
    ready(container)
    os.kill(container.pid, signal.SIGTERM)
    until(lambda: container.get(PROBE, "/-/ready")[0] == 503, "it says that it leaves", context=lambda: container.log)
    assert container.get(PROBE, "/-/live")[0] == 200
    assert container.get(HTTP, "/") == (200, "Hello\n")
    # Nobody is to wait for the end of the delay, which a second one is.
    os.kill(container.pid, signal.SIGTERM)
    until(lambda: container.state["Status"] == "exited", "it has left", context=lambda: container.log)
    assert container.state["ExitCode"] == 0
