#!/usr/bin/env python3
"""Writes kvatlas.json, the Grafana dashboard, from the list of panels below: python3 make.py > kvatlas.json"""
import json

L = "lmcache:cache_controller_"
S = '{job=~"$job", instance=~"$instance"}'


def s(name, extra=""):
    return name + S if not extra else f'{name}{S[:-1]}, {extra}}}'


def rate(name, extra="", by=""):
    return f"sum{' by (' + by + ')' if by else ''} (rate({s(name, extra)}[$__rate_interval]))"


def quantile(q, name):
    return f"histogram_quantile({q}, sum by (le) (rate({s(name)}[$__rate_interval])))"


# (row) or (title, kind, unit, [(expression, legend)])
PANELS = [
    ("The fleet",),
    ("Instances", "stat", "short", [(f"sum({s('kvatlas_instances')})", "")]),
    ("Workers", "stat", "short", [(f"sum({s(L + 'registered_workers_count')})", "")]),
    ("Keys", "stat", "short", [(f"sum({s(L + 'kv_pool_keys_count')})", "")]),
    ("Lookups that hit", "stat", "percentunit",
     [(rate("kvatlas_lookups_total", 'result="hit"') + " / " + rate("kvatlas_lookups_total"), "")]),
    ("Keys over time", "timeseries", "short", [(s(L + "kv_pool_keys_count"), "{{instance}}")]),
    ("Workers over time", "timeseries", "short",
     [(s(L + "registered_workers_count"), "registered {{instance}}"),
      (f"increase({s('kvatlas_workers_expired_total')}[$__rate_interval])", "expired {{instance}}")]),
    ("What workers report",),
    ("Operations", "timeseries", "ops", [(rate("kvatlas_ingest_operations_total"), "operations")]),
    ("Keys that became held or ceased to be", "timeseries", "ops",
     [(rate("kvatlas_ingest_changes_total", by="kind"), "{{kind}}")]),
    ("Messages", "timeseries", "ops", [(rate("kvatlas_messages_total", by="front"), "{{front}}")]),
    ("Messages without effect", "timeseries", "ops",
     [(rate("kvatlas_bad_frames_total", by="front, reason") + " > 0", "{{front}} {{reason}}")]),
    ("Sequence gaps and lost replies", "timeseries", "short",
     [(s(L + "kv_op_seq_discontinuity_count"), "gaps"),
      (rate("kvatlas_replies_dropped_total", by="front"), "replies dropped, {{front}}")]),
    ("Pull socket has more waiting", "timeseries", "short", [(s(L + "pull_socket_has_pending"), "{{instance}}")]),
    ("Lookups",),
    ("Lookups", "timeseries", "reqps",
     [(rate("kvatlas_lookups_total", by="result"), "HTTP {{result}}"),
      (rate("kvatlas_peer_lookups_total", by="result"), "peer {{result}}")]),
    ("Time of a lookup", "timeseries", "s",
     [(quantile(0.5, "kvatlas_lookup_seconds_bucket"), "p50"),
      (quantile(0.99, "kvatlas_lookup_seconds_bucket"), "p99")]),
    ("Time of a peer lookup", "timeseries", "s",
     [(quantile(0.5, "kvatlas_peer_lookup_seconds_bucket"), "p50"),
      (quantile(0.99, "kvatlas_peer_lookup_seconds_bucket"), "p99")]),
    ("HTTP requests", "timeseries", "reqps",
     [(rate("kvatlas_http_requests_total", by="code"), "{{code}}"),
      (rate("kvatlas_http_refused_total", by="reason") + " > 0", "refused: {{reason}}"),
      (s("kvatlas_http_requests_active"), "being worked on")]),
    ("Commands and full syncs",),
    ("Commands", "timeseries", "ops",
     [(rate("kvatlas_commands_total", by="command, state") + " > 0", "{{command}} {{state}}")]),
    ("Time of a command", "timeseries", "s",
     [(quantile(0.5, "kvatlas_command_seconds_bucket"), "p50"),
      (quantile(0.99, "kvatlas_command_seconds_bucket"), "p99")]),
    ("Full sync", "timeseries", "short",
     [(s(L + "full_sync_workers_syncing"), "syncing"), (s(L + "full_sync_workers_completed"), "completed"),
      (s(L + "full_sync_missing_batches_total"), "missing batches"),
      (s("kvatlas_workers_incomplete"), "incomplete: a limit keeps keys out")]),
    ("Full sync progress", "timeseries", "percentunit", [(s(L + "full_sync_global_progress"), "{{instance}}")]),
    ("The process",),
    ("Memory", "timeseries", "bytes",
     [(s("process_resident_memory_bytes"), "resident"), (s("kvatlas_index_bytes"), "index"), (s("kvatlas_index_limit_bytes") + " > 0", "index, limit")]),
    ("Processor", "timeseries", "percentunit", [(rate("process_cpu_seconds_total"), "cores")]),
    ("State on disk", "timeseries", "bytes", [(s("kvatlas_state_journal_bytes"), "journals a restart would replay")]),
    ("State is kept (1) or that fails (0)", "timeseries", "short", [(s("kvatlas_state_working"), "{{instance}}")]),
    ("Open files", "timeseries", "short", [(s("process_open_fds"), "{{instance}}")]),
    ("Departed holders still to be freed", "timeseries", "short",
     [(s("kvatlas_sweep_dead_holders"), "holders"), (rate("kvatlas_sweep_freed_total"), "entries freed a second")]),
]


def panels():
    x = y = number = 0
    height = 0
    for panel in PANELS:
        number += 1
        if len(panel) == 1:
            y, x = y + height, 0
            height = 0
            yield {"id": number, "type": "row", "title": panel[0], "collapsed": False, "panels": [],
                   "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
            y += 1
            continue
        title, kind, unit, targets = panel
        width, tall = (6, 4) if kind == "stat" else (12, 8)
        if x + width > 24:
            x, y = 0, y + height
        height = tall
        yield {
            "id": number, "type": kind, "title": title,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"h": tall, "w": width, "x": x, "y": y},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": chr(65 + n), "expr": expr, "legendFormat": legend or "__auto",
                         "datasource": {"type": "prometheus", "uid": "${datasource}"}}
                        for n, (expr, legend) in enumerate(targets)],
        }
        x += width


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "query": query, "refresh": 2, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            "datasource": {"type": "prometheus", "uid": "${datasource}"}}


print(json.dumps({
    "uid": "kvatlas", "title": "KVAtlas", "tags": ["kvatlas", "lmcache"], "schemaVersion": 39, "version": 1,
    "editable": True, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
    "templating": {"list": [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        variable("job", "Job", "label_values(kvatlas_build_info, job)"),
        variable("instance", "Controller", "label_values(kvatlas_build_info{job=~\"$job\"}, instance)"),
    ]},
    "panels": list(panels()),
}, indent=1))
