//! Routes and what they are, added together: a route without its [`Operation`] cannot be made, so
//! /openapi.json leaves none out.
//!
//! What every request may be refused with is not repeated at each route: it follows from the method,
//! the role and the body ([`refusals`]). Only what the handler itself may answer stands beside it.

pub mod document;
pub mod operation;
mod refusals;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{get, post};

use self::operation::Operation;
use crate::app::AppState;

/// Routes of one file, or of all.
pub struct Api {
    router: Router<AppState>,
    tag: &'static str,
    routes: Vec<Route>,
}

/// One described route.
pub struct Route {
    method: Method,
    /// With `{name}` for what varies, as in axum and in OpenAPI.
    path: &'static str,
    /// Heading it is listed under.
    tag: &'static str,
    operation: Operation,
}

impl Api {
    /// No routes yet; what is added is listed under `tag`.
    pub fn new(tag: &'static str) -> Self {
        Self {
            router: Router::new(),
            tag,
            routes: Vec::new(),
        }
    }

    /// Adds a GET route.
    pub fn get<H, T>(mut self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        self.router = self.router.route(path, get(handler));
        self.describe(Method::GET, path, operation)
    }

    /// Adds a POST route.
    pub fn post<H, T>(mut self, path: &'static str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        self.router = self.router.route(path, post(handler));
        self.describe(Method::POST, path, operation)
    }

    fn describe(mut self, method: Method, path: &'static str, operation: Operation) -> Self {
        self.routes.push(Route {
            method,
            path,
            tag: self.tag,
            operation,
        });
        self
    }

    /// Adds the routes of another file.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.routes.extend(other.routes);
        self
    }

    /// The routes to serve; what describes them is [`document::text`].
    pub(super) fn into_router(self) -> Router<AppState> {
        self.router
    }

    /// The described routes.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }
}
