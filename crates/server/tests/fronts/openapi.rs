//! The description of the endpoints against the endpoints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::Controller;

/// Method, path and description of every operation.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap().iter();
            item.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        })
        .collect()
}

/// Every `$ref` in a value.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_description_is_the_one_in_docs_and_complete_in_itself() {
    let controller = Controller::start();
    let reply = controller.get("/openapi.json");
    assert!(reply.head.contains("content-type: application/json"));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    assert!(
        reply.body == fs::read_to_string(golden).unwrap(),
        "run `make docs`"
    );
    let document = reply.json();
    let mut wanted = BTreeSet::new();
    references(&document, &mut wanted);
    for reference in wanted {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
        let success = &operation["responses"]["200"]["content"];
        for (kind, content) in success.as_object().unwrap() {
            assert!(!content["example"].is_null(), "{method} {path} {kind}");
        }
        if let Some(content) = operation["requestBody"]["content"].get("application/json") {
            let examples = [&content["example"], &content["examples"]];
            assert!(examples.iter().any(|one| !one.is_null()), "{method} {path}");
        }
    }
}

#[test]
fn what_is_described_is_served_and_other_methods_are_not() {
    let controller = Controller::start();
    let document = controller.get("/openapi.json").json();
    let operations = operations(&document);
    for path in operations
        .iter()
        .map(|(_, path, _)| path)
        .collect::<BTreeSet<_>>()
    {
        let address = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let is_described = operations
                .iter()
                .any(|(one, at, _)| (one.as_str(), at) == (method, path));
            // The stream has no end.
            if is_described && path == "/live" {
                continue;
            }
            let reply = controller.request(method, &address, "", b"");
            if is_described {
                assert_ne!(reply.status, 405, "{method} {path}");
                assert_ne!(reply.body, r#"{"detail":"Not Found"}"#, "{method} {path}");
            } else {
                assert_eq!(reply.status, 405, "{method} {path}");
                assert_eq!(reply.body, r#"{"detail":"Method Not Allowed"}"#);
                assert!(reply.head.contains("allow: "), "{method} {path}");
            }
        }
    }
}

#[test]
fn statuses_without_a_description_are_not_given() {
    let controller = Controller::start();
    let document = controller.get("/openapi.json").json();
    for (method, path, operation) in operations(&document) {
        if path == "/live" {
            continue;
        }
        let address = path.replace('{', "%FF").replace('}', "");
        for body in ["", "{", "[]", "{}", "\u{feff}{}", "\u{0}"] {
            let body = if method == "GET" { "" } else { body };
            let query = format!("{address}?wait=x&limit=0&level=loud&worker_id=%FF&thread_id=");
            let reply = controller.request(&method, &query, "application/json", body.as_bytes());
            let status = reply.status.to_string();
            assert!(
                operation["responses"].get(&status).is_some(),
                "{method} {path} {body:?} {status} {}",
                reply.body
            );
        }
    }
}

#[test]
fn routes_are_added_in_one_place_only() {
    fn walk(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if fs::read_to_string(&path).unwrap().contains(".route(") {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut found,
    );
    assert_eq!(
        found,
        ["api.rs"],
        "routes go through `Api`, which describes them"
    );
}

#[test]
fn parts_of_a_path_that_are_no_text_are_names_nobody_has() {
    let controller = Controller::start();
    for (path, key) in [
        ("/events/%FF", "detail"),
        ("/events/%F0%28%8C%28", "detail"),
        ("/static/%FF", "detail"),
        ("/periodic-threads/%FF", "error"),
    ] {
        let reply = controller.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()[key].is_string(), "{path} {}", reply.body);
    }
}

#[test]
fn the_page_of_the_description_needs_nothing_from_elsewhere() {
    let controller = Controller::start();
    let page = controller.get("/docs");
    assert_eq!(page.status, 200);
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'; script-src 'self'")
    );
    assert!(!page.body.contains("://"));
    for line in page.body.lines() {
        let Some((_, rest)) = line.split_once("\"static/") else {
            continue;
        };
        let name = rest.split('"').next().unwrap();
        let file = controller.get(&format!("/static/{name}"));
        assert_eq!(file.status, 200, "{name}");
        // SVG's namespace is a name, nothing is fetched from there.
        let body = file.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!body.contains("http://") && !body.contains("https://"));
    }
}
