"""The chart renders with Helm's own engine into manifests that Kubernetes' schemas accept."""
import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from conftest import ROOT

CHART = ROOT / "packaging/helm/kvatlas"
PLAIN = ROOT / "packaging/kubernetes/kvatlas.yaml"
VERSION = "1.37"
PORTS = {"http": 9000, "pull": 8300, "reply": 8400, "heartbeat": 8500}
EVERYTHING = {
    "config": {"log_format": "json"}, "env": [{"name": "X", "value": "y"}], "podAnnotations": {"a": "b"},
    "imagePullSecrets": [{"name": "s"}], "networkPolicy": {"enabled": True}, "serviceMonitor": {"enabled": True},
    "persistence": {"enabled": True, "storageClass": "fast", "size": "1Gi"}, "priorityClassName": "high",
    "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}},
    "tls": {"secretName": "kv-tls", "clientCA": "ca.crt"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}, "advertiseHost": "kv.example.org",
}
NOTHING = {"persistence": {"enabled": False}, "podDisruptionBudget": {"enabled": False}}


def render(values=None, name="kvatlas"):
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(values or {}, name=name, namespace="default")
    parts = [text.strip() for path, text in sorted(texts.items()) if path.endswith(".yaml") and text.strip()]
    return "\n---\n".join(parts) + "\n"


def objects(text):
    return {thing["kind"]: thing for thing in yaml.safe_load_all(text)}


def test_lint():
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [m for m in found["messages"] if "icon is recommended" not in m["error"]] == []


@pytest.mark.parametrize("values", [{}, EVERYTHING, NOTHING], ids=["defaults", "everything", "nothing"])
def test_what_is_rendered_fits_the_schemas(values):
    for kind, thing in objects(render(values)).items():
        if kind != "ServiceMonitor":  # the Prometheus operator's, not Kubernetes'
            kubernetes_validate.validate(thing, VERSION, strict=True)


def test_the_schemas_refuse_nonsense():
    thing = objects(render())["StatefulSet"]
    thing["spec"]["template"]["spec"]["containers"][0]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, VERSION, strict=True)


def test_all_ports_reach_the_process():
    found = objects(render())
    container = found["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == PORTS
    assert {p["targetPort"]: p["port"] for p in found["Service"]["spec"]["ports"]} == PORTS
    config = yaml.safe_load(found["ConfigMap"]["data"]["kvatlas.yaml"])
    assert config["controller_port"] == PORTS["http"]
    assert {"http": config["controller_port"], **config["controller_monitor_ports"]} == PORTS
    assert config["controller_advertise_host"] == found["Service"]["metadata"]["name"]


def test_probes_budget_volume_and_an_unprivileged_user():
    found = objects(render())
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert found["PodDisruptionBudget"]["spec"]["selector"] == found["StatefulSet"]["spec"]["selector"]
    (claim,) = found["StatefulSet"]["spec"]["volumeClaimTemplates"]
    config = yaml.safe_load(found["ConfigMap"]["data"]["kvatlas.yaml"])
    assert {"name": claim["metadata"]["name"], "mountPath": config["state_dir"]} in container["volumeMounts"]


def test_a_secret_makes_it_https():
    found = objects(render({"tls": {"secretName": "kv-tls"}, "serviceMonitor": {"enabled": True}}))
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    probes = [container[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "liveness", "readiness")]
    assert probes == ["HTTPS"] * 3
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["scheme"] == "https"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    config = yaml.safe_load(found["ConfigMap"]["data"]["kvatlas.yaml"])
    assert (config["tls_cert"], config["tls_key"]) == (mounts["tls"] + "/tls.crt", mounts["tls"] + "/tls.key")
    assert "tls_client_ca" not in config
    assert {"name": "tls", "secret": {"secretName": "kv-tls"}} in pod["volumes"]
    # Probes have no certificate.
    config = yaml.safe_load(objects(render(EVERYTHING))["ConfigMap"]["data"]["kvatlas.yaml"])
    assert config["tls_client_auth"] == "except-open"


def test_typing_errors_in_values_are_refused():
    for values in ({"servcie": {}}, {"service": {"ports": {"http": 0}}}, {"config": {"controller_port": 1}}):
        with pytest.raises(helm.HelmError):
            render(values)


def test_the_binary_takes_the_charts_configuration(binary, tmp_path, certificate):
    """Every key is known and every value parses: the process gets as far as binding."""
    import subprocess
    text = objects(render(EVERYTHING))["ConfigMap"]["data"]["kvatlas.yaml"]
    file = tmp_path / "kvatlas.yaml"
    for name in ("tls.crt", "tls.key", "ca.crt"):
        text = text.replace(f"/etc/kvatlas-tls/{name}", str(certificate / name))
    file.write_text(text)
    # A host that cannot be bound ends it there.
    done = subprocess.run([binary, "serve", "--config", file, "--host", "203.0.113.1", "--state-dir", tmp_path],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "bind" in done.stderr and "unknown" not in done.stderr, done.stderr


def test_the_plain_manifests_are_the_chart_with_its_defaults():
    head, _, body = PLAIN.read_text().partition("---\n")
    assert head.startswith("#")
    assert body == render(), "run `make manifests`"
