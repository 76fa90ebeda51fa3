//! The page at / and its files under /static, embedded: the binary needs no files beside it, and the
//! page nothing from elsewhere.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::api::Api;
use super::api::operation::{Operation, Parameter};
use super::error::ApiError;
use super::query::LastSegment;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page loads only its own files and talks only to this process.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        /// Name under /static, type, text.
        const FILES: &[(&str, &str, &str)] = &[
            $(($name, $kind, include_str!(concat!("../../dashboard/", $name)))),*
        ];
    };
}

files! {
    "icon.svg": SVG,
    "style.css": CSS,
    "app.js": JAVASCRIPT,
    "dom.js": JAVASCRIPT,
    "token.js": JAVASCRIPT,
    "chart.js": JAVASCRIPT,
    "frame.js": JAVASCRIPT,
    "icons.js": JAVASCRIPT,
    "overview.js": JAVASCRIPT,
    "fleet.js": JAVASCRIPT,
    "lookup.js": JAVASCRIPT,
    "actions.js": JAVASCRIPT,
    "sync.js": JAVASCRIPT,
    "diagnose.js": JAVASCRIPT,
    "metrics.js": JAVASCRIPT,
    "docs.js": JAVASCRIPT,
}

const PAGE: &str = include_str!("../../dashboard/index.html");
const DOCS: &str = include_str!("../../dashboard/docs.html");

/// Routes of this file.
pub fn routes() -> Api {
    let page = Operation::new("page", "The page").gives_text(HTML, "the page", "<!doctype html>");
    let docs = Operation::new("docs", "This description as a page").gives_text(
        HTML,
        "the page",
        "<!doctype html>",
    );
    let file_operation = Operation::new("page_file", "A file of the page")
        .parameter(Parameter::path("name", "Its name.").example("style.css"))
        .gives_text(CSS, "a style sheet", "body { margin: 0 }")
        .gives_text(JAVASCRIPT, "a script", "export const title = 'Fleet';")
        .refuses(StatusCode::NOT_FOUND, "No such file.", "no such file");
    Api::new("Page")
        .get("/", async || served(HTML, PAGE), page)
        .get("/docs", async || served(HTML, DOCS), docs)
        .get("/static/{name}", file, file_operation)
}

async fn file(LastSegment(name): LastSegment) -> Result<Response, ApiError> {
    FILES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, kind, text)| served(kind, text))
        .ok_or_else(|| ApiError::not_found("no such file"))
}

fn served(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        // A new binary brings a new page.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text).into_response()
}
