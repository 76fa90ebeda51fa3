"""LMCache's 13 gauges, byte for byte as its own controller shows them."""

from harness.prompts import CHUNK, chunk_hashes, prompt

PREFIX = "lmcache:cache_controller_"


def upstream_samples(controller):
    """Names, labels and types of LMCache's gauges; the help texts are each project's own."""
    text = controller.get("/metrics").text
    lines = [line for line in text.splitlines() if PREFIX in line and not line.startswith("# HELP")]
    return sorted(line if line.startswith("#") else line.rsplit(" ", 1)[0] for line in lines)


def test_names_labels_and_types_are_upstreams(controller, upstream):
    expected = upstream_samples(upstream)
    assert len(expected) == 2 * 13
    assert upstream_samples(controller) == expected


def test_content_type_is_prometheus_text(controller):
    assert controller.get("/metrics").headers["content-type"].startswith("text/plain")


def test_values_follow_what_happens(controller, peer):
    a = peer(controller, "a")
    a.register()
    a.admit(chunk_hashes(prompt(1, 3 * CHUNK)))
    a.fence()
    assert controller.metric(PREFIX + "registered_workers_count") == 2, "a and its fence"
    assert controller.metric(PREFIX + "kv_pool_keys_count") == 4
    assert controller.metric(PREFIX + "pull_socket_message_count") == 2, "parts, not multiparts"
    assert controller.metric(PREFIX + "reply_socket_message_count") == 2
    assert controller.metric(PREFIX + "pull_socket_active_requests") == 0
    assert controller.metric(PREFIX + "full_sync_workers_syncing") == 0


def test_own_metrics_are_apart(controller):
    names = {line.split()[2] for line in controller.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    assert any(name.startswith("kvatlas_") for name in names)
    assert all(name.startswith((PREFIX, "kvatlas_", "process_")) for name in names), names
