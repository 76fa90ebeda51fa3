"""HTTP requests and replies as LMCache's clients know them (COMPAT.md D15, D30, D34, D36)."""

import os
import re

import pytest
from lmcache.v1.cache_controller.message import DeRegisterMsg

from harness.eventually import eventually
from harness.raw_peer import CPU

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture
def two_instances(controller, peer):
    """Instance a with ranks 0 and 1 on one host, b with rank 0 on another; a holds 3 + 2 keys."""
    a0 = peer(controller, "a", 0, ip="10.0.0.1", port=7000, peer_url="10.0.0.1:7100")
    a1 = peer(controller, "a", 1, ip="10.0.0.1", port=7001)
    b0 = peer(controller, "b", 0, ip="10.0.0.2", port=7000)
    for each in (a0, a1, b0):
        each.register()
    a0.admit([1, 2, 3])
    a1.admit([1, 2])
    for each in (a0, a1):
        each.fence()
        each.push(DeRegisterMsg(each.fence_id, 0, "", 0))
    eventually(lambda: controller.get("/controller/key-stats").json()["total_worker_count"], 3)
    return controller


def ids(worker_infos):
    return [(info["instance_id"], info["worker_id"]) for info in worker_infos]


def test_event_ids(two_instances):
    for path, body, prefix in (
        ("/lookup", {"tokens": [1]}, "Lookup"),
        ("/query_instance", {"event_id": "x", "ip": "10.0.0.1"}, "QueryInst"),
        ("/query_worker_info", {"instance_id": "a"}, "QueryWorkerInfo"),
    ):
        reply = two_instances.post(path, body).json()
        assert re.fullmatch(prefix + UUID, reply["event_id"]), reply


def test_query_instance(two_instances):
    reply = two_instances.post("/query_instance", {"event_id": "e", "ip": "10.0.0.2"})
    assert reply.status_code == 200 and reply.json()["res"] == "b"
    reply = two_instances.post("/query_instance", {"ip": "10.0.0.1"}).json()
    assert reply["res"] == "a" and reply["instances"] == ["a"]
    unknown = two_instances.post("/query_instance", {"event_id": "e", "ip": "10.9.9.8"})
    assert unknown.status_code == 404 and isinstance(unknown.json()["detail"], str)


def test_query_instance_names_all_instances_of_a_host(controller, peer):
    for name in ("a", "b"):
        peer(controller, name, ip="10.0.0.1").register()
    reply = controller.post("/query_instance", {"ip": "10.0.0.1"}).json()
    assert sorted(reply["instances"]) == ["a", "b"] and reply["res"] in ("a", "b")


def test_query_worker_info(two_instances):
    def ask(**body):
        reply = two_instances.post("/query_worker_info", body)
        assert reply.status_code == 200, reply.text
        return reply.json()["worker_infos"]

    assert ids(ask(instance_id="a")) == [("a", 0), ("a", 1)]
    assert ids(ask(instance_id="a", worker_ids=[1])) == [("a", 1)]
    assert ids(ask(instance_id="a", worker_ids=[])) == [("a", 0), ("a", 1)]
    assert ids(ask(instance_id="a", worker_ids=[1, 7])) == [("a", 1)]
    assert sorted(ids(ask(instance_id="all"))) == [("a", 0), ("a", 1), ("b", 0)]
    assert sorted(ids(ask(instance_id="all", worker_ids=[0]))) == [("a", 0), ("b", 0)]
    assert ask(instance_id="nobody") == []
    (info,) = ask(instance_id="a", worker_ids=[0])
    assert info.pop("registration_time") > 1.7e9 and info.pop("last_heartbeat_time") > 1.7e9
    assert info == {"instance_id": "a", "worker_id": 0, "ip": "10.0.0.1", "port": 7000, "peer_init_url": "10.0.0.1:7100"}


def test_controller_workers(two_instances):
    def ask(**query):
        return two_instances.get("/controller/workers", params=query)

    everyone = ask().json()
    assert everyone["total_count"] == 3
    assert sorted((*key, info["key_count"]) for key, info in zip(ids(everyone["workers"]), everyone["workers"], strict=True)) == [
        ("a", 0, 3), ("a", 1, 2), ("b", 0, 0),
    ]
    instance = ask(instance_id="a").json()
    assert ids(instance["workers"]) == [("a", 0), ("a", 1)] and instance["total_count"] == 2
    one = ask(instance_id="a", worker_id=1).json()
    assert set(one) == {
        "instance_id", "worker_id", "ip", "port", "peer_init_url", "registration_time", "last_heartbeat_time", "key_count",
    }
    assert (one["key_count"], one["peer_init_url"]) == (2, None)
    for query in ({"instance_id": "zzz"}, {"instance_id": "a", "worker_id": 9}):
        reply = ask(**query)
        assert reply.status_code == 404 and isinstance(reply.json()["detail"], str)
    assert ask(worker_id=0).json()["total_count"] == 3, "worker_id alone filters nothing"


def test_key_stats(two_instances):
    stats = two_instances.get("/controller/key-stats").json()
    stats["instances"].sort(key=lambda instance: instance["instance_id"])
    assert stats == {
        "total_key_count": 5,
        "total_instance_count": 2,
        "total_worker_count": 3,
        "instances": [
            {"instance_id": "a", "key_count": 5, "worker_count": 2},
            {"instance_id": "b", "key_count": 0, "worker_count": 1},
        ],
    }


@pytest.mark.parametrize(
    ("path", "body", "loc", "kind"),
    [
        ("/lookup", {}, ["body", "tokens"], "missing"),
        ("/lookup", {"tokens": "x"}, ["body", "tokens"], "list_type"),
        ("/lookup", {"tokens": [1, "x"]}, ["body", "tokens", 1], "int_parsing"),
        ("/lookup", {"tokens": [1.5]}, ["body", "tokens", 0], "int_from_float"),
        ("/lookup", {"tokens": [None]}, ["body", "tokens", 0], "int_type"),
        ("/lookup", [1], ["body"], "model_attributes_type"),
        ("/query_worker_info", {"instance_id": 5}, ["body", "instance_id"], "string_type"),
        ("/query_instance", {"event_id": "e"}, ["body", "ip"], "missing"),
        ("/clear", {"instance_id": "a"}, ["body", "location"], "missing"),
        ("/check_finish", {}, ["body", "event_id"], "missing"),
        ("/health", {}, ["body", "instance_id"], "missing"),
    ],
)
def test_schema_errors(shared_controller, path, body, loc, kind):
    reply = shared_controller.post(path, body)
    assert reply.status_code == 422, reply.text
    (error,) = reply.json()["detail"]
    assert set(error) == {"type", "loc", "msg", "input"}
    assert (error["loc"], error["type"]) == (loc, kind)


def test_bodies_that_are_no_json(shared_controller):
    json_type = {"content-type": "application/json"}
    reply = shared_controller.http.post(shared_controller.url + "/lookup", data=b'{"tokens": [1', headers=json_type, timeout=20)
    assert reply.status_code == 422
    (error,) = reply.json()["detail"]
    assert error["type"] == "json_invalid" and error["loc"][0] == "body"
    reply = shared_controller.http.post(shared_controller.url + "/lookup", data=b"", headers=json_type, timeout=20)
    assert reply.status_code == 422 and reply.json()["detail"][0]["type"] == "missing"


def test_tokens_beyond_64_bits_are_refused(shared_controller):
    reply = shared_controller.post("/lookup", {"tokens": [2**70]})
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", "tokens", 0]


def test_bodies_over_the_limit_are_refused(launcher):
    controller = launcher.start(os.environ.get("INTEROP_UNDER_TEST", "kvatlas"), "max_body_bytes=2000")
    assert controller.post("/lookup", {"tokens": [1] * 100}).status_code == 200
    reply = controller.post("/lookup", {"tokens": [1] * 100_000})
    assert reply.status_code == 413 and isinstance(reply.json()["detail"], str)
    controller.http.close()  # what is left of the body ends the connection
    assert controller.lookup([1]) == []


def test_bad_query_strings(shared_controller):
    reply = shared_controller.get("/controller/workers?worker_id=x&instance_id=a")
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["query", "worker_id"]
    assert shared_controller.get("/controller/workers?instance_id=%ff%fe").status_code in (404, 422)
    assert shared_controller.get("/controller/workers?nonsense=1&&&=").status_code == 200


def test_unknown_paths_and_methods(shared_controller):
    for reply, status in (
        (shared_controller.get("/nope"), 404),
        (shared_controller.get("/lookup"), 405),
        (shared_controller.post("/run_script", {"script": "print(1)"}), 404),
        (shared_controller.get("/env"), 404),
    ):
        assert reply.status_code == status, reply.url
        assert isinstance(reply.json()["detail"], str), reply.url


@pytest.mark.parametrize("path", ["/clear", "/pin", "/compress", "/decompress"])
def test_commands_to_unknown_instances(shared_controller, path):
    body = {"instance_id": "nobody", "location": CPU, "method": "cachegen", "tokens": [1]}
    reply = shared_controller.post(path, body)
    assert reply.status_code == 404 and "nobody" in reply.json()["detail"]


def test_health_of_an_unknown_instance_is_empty(shared_controller):
    reply = shared_controller.post("/health", {"instance_id": "nobody"})
    assert reply.status_code == 200 and reply.json()["error_codes"] == {}
    assert re.fullmatch("health" + UUID, reply.json()["event_id"])


def test_pages_for_people_and_probes(shared_controller):
    page = shared_controller.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert shared_controller.get("/healthz").status_code == 200
    assert shared_controller.get("/readyz").status_code == 200
    assert re.search(r"\d+\.\d+\.\d+", shared_controller.get("/version").text)
    assert shared_controller.get("/loglevel").status_code == 200
