//! The OpenAPI 3.1 document, from the described routes.

use axum::http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operation::{Answer, Media, Operation, Parameter};
use super::refusals::{self, Refusal};
use super::{Api, Route};
use crate::http::auth::{self, Role};

const ABOUT: &str = "\
Who holds which KV chunk in an LMCache fleet, and the commands that move them. LMCache's endpoints \
keep its field names and its way of reading values: \"5\" and 5.0 are taken where 5 is meant, and \
unknown fields are ignored.

Errors are `{\"detail\": text}`; what does not fit is 422 with every place that does not. Any request \
whose body breaks off or comes too slowly is answered 400 or 408, unknown paths 404, other methods 405.

Where tokens are configured, endpoints ask for `Authorization: Bearer TOKEN`: the scope says whether \
the read token is enough. Without tokens nothing is asked for.";

/// Where the schemas of all types are kept.
const DEFINITIONS: &str = "/components/schemas";

/// The document, indented.
pub fn text(api: &Api) -> String {
    let mut text = format!("{:#}", document(api));
    text.push('\n');
    text
}

fn document(api: &Api) -> Value {
    // What is taken and what is given see options differently: absent is not null.
    let settings = || {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = DEFINITIONS.into();
        settings.meta_schema = None;
        settings
    };
    let mut schemas = Schemas {
        taken: settings().for_deserialize().into_generator(),
        given: settings().for_serialize().into_generator(),
    };
    let mut paths = Map::new();
    for route in api.routes() {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_lowercase()] = operation(route, &mut schemas);
    }
    let responses: Map<String, Value> = refusals::ALL
        .iter()
        .map(|refusal| {
            (
                refusal.name.to_owned(),
                refusal.rendered(&mut schemas.given),
            )
        })
        .collect();
    let mut definitions = schemas.given.take_definitions(true);
    definitions.extend(schemas.taken.take_definitions(true));
    definitions.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "KVAtlas",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": responses,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": auth::COOKIE_NAME,
                    "description": "What POST /session gives in exchange for a token; it only reads.",
                },
            },
        },
    })
}

struct Schemas {
    taken: SchemaGenerator,
    given: SchemaGenerator,
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let Operation {
        id,
        summary,
        about,
        parameters,
        bodies,
        answers,
    } = &route.operation;
    let mut operation = json!({ "tags": [route.tag], "operationId": id, "summary": summary });
    if let Some(about) = about {
        operation["description"] = (*about).into();
    }
    operation["security"] = security(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.iter().map(parameter).collect();
    }
    if !bodies.is_empty() {
        let contents = bodies.iter().map(|body| content(body, &mut schemas.taken));
        operation["requestBody"] = json!({
            "required": true,
            "content": contents.collect::<Map<_, _>>(),
        });
    }
    let refusals = refusals::of(route);
    let mut statuses: Vec<u16> = answers.iter().map(|one| one.status.as_u16()).collect();
    statuses.extend(refusals.iter().map(|one| one.status.as_u16()));
    statuses.sort_unstable();
    statuses.dedup();
    operation["responses"] = statuses
        .into_iter()
        .map(|status| {
            let own = answers.iter().filter(|one| one.status == status).collect();
            let shared = refusals.iter().find(|one| one.status == status);
            let response = response(own, shared, &mut schemas.given);
            (status.to_string(), response)
        })
        .collect::<Map<_, _>>()
        .into();
    operation
}

fn security(route: &Route) -> Value {
    match refusals::role(route) {
        None => json!([]),
        Some(Role::Admin) => json!([{ "token": ["admin"] }]),
        Some(Role::Read) if route.method == Method::GET => {
            json!([{ "token": ["read"] }, { "session": [] }])
        }
        Some(Role::Read) => json!([{ "token": ["read"] }]),
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter {
        name,
        is_in_path,
        about,
        schema,
        example,
        is_checked: _,
    } = parameter;
    let mut rendered = json!({
        "name": name,
        "in": if *is_in_path { "path" } else { "query" },
        "description": about,
        "required": is_in_path,
        "schema": schema,
    });
    if let Some(example) = example {
        rendered["example"] = example.clone();
    }
    rendered
}

/// What the handler itself answers with a status, and what surrounds it.
fn response(own: Vec<&Answer>, shared: Option<&Refusal>, generator: &mut SchemaGenerator) -> Value {
    if let (Some(refusal), true) = (shared, own.is_empty()) {
        return json!({ "$ref": format!("#/components/responses/{}", refusal.name) });
    }
    let mut about: Vec<&str> = own.iter().map(|one| one.about.as_str()).collect();
    about.extend(shared.map(Refusal::about));
    let shared = shared.map(Refusal::media);
    let mut contents: Map<String, Value> = Map::new();
    for media in own.iter().map(|one| &one.media).chain(&shared) {
        let (kind, new) = content(media, generator);
        match contents.get_mut(&kind) {
            None => {
                contents.insert(kind, new);
            }
            // Two forms of one type: either may come.
            Some(old) if old["schema"] != new["schema"] => {
                old["schema"] = json!({ "anyOf": [old["schema"], new["schema"]] });
            }
            Some(_) => {}
        }
    }
    json!({ "description": about.join(" Or: "), "content": contents })
}

fn content(media: &Media, generator: &mut SchemaGenerator) -> (String, Value) {
    let Media {
        kind,
        schema,
        examples,
    } = media;
    let mut content = json!({ "schema": schema(generator) });
    match examples.as_slice() {
        [] => {}
        [one] => content["example"] = one.clone(),
        several => {
            let named = several.iter().enumerate();
            content["examples"] = named
                .map(|(n, value)| ((n + 1).to_string(), json!({ "value": value })))
                .collect::<Map<_, _>>()
                .into();
        }
    }
    ((*kind).to_owned(), content)
}
