//! The distribution protocol (distribution-spec 1.1, "API"): one file for each kind of thing, and here who may ask for what.

mod blobs;
mod lists;
pub(super) mod manifests;
mod uploads;

use std::sync::Arc;

use hyper::header::{ALLOW, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::task::blocking;

use super::Error;
use super::auth::Users;
use super::body::Buffers;
use super::metrics::Metrics;
use super::mirror::Mirror;
use super::reply::{Refusal, Reply};
use super::request::{Head, RequestBody};
use super::route::Route;
use super::storage::{Access, Storage};

/// Everything that requests are answered from. Cheap to clone.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) storage: Arc<Storage>,
    /// The registry that this one stands for.
    pub(super) mirror: Option<Arc<Mirror>>,
    /// Who may come in; `None`: everybody.
    pub(super) users: Option<Users>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) buffers: Buffers,
}

impl Service {
    /// Who asks; refuses whoever may not.
    pub(super) async fn admit(&self, head: &Head) -> Result<Option<String>, Refusal> {
        let Some(users) = &self.users else { return Ok(None) };
        if let Some(user) = users.check(head.header(hyper::header::AUTHORIZATION)).await? {
            return Ok(Some(user));
        }
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "user name and password are needed, and they must be right");
        Err(refusal.with(WWW_AUTHENTICATE, "Basic realm=\"strake registry\", charset=\"UTF-8\""))
    }

    /// Answers a request of somebody who may ask.
    pub(super) async fn answer(&self, route: &Route, head: &Head, body: &mut RequestBody) -> Result<Reply, Refusal> {
        let method = &head.method;
        let allowed = methods(route);
        if allowed.is_empty() {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "there is nothing at this address: the API begins at /v2/"));
        }
        if !allowed.contains(method) {
            let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            return Err(Refusal::unsupported(format!("{method} does not go here, only {list}")).with(ALLOW, &list));
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            self.writable()?;
        }
        match (route, method) {
            (Route::Base, _) => Ok(Reply::json(StatusCode::OK, &json!({}))),
            (Route::Metrics, _) => self.metrics().await,
            (Route::Catalog, _) => lists::catalog(self, head).await,
            (Route::Tags(name), _) => lists::tags(self, name, head).await,
            (Route::Referrers(name, subject), _) => lists::referrers(self, name, subject, head).await,
            (Route::Manifest(name, target), &Method::PUT) => manifests::put(self, name, target, head, body).await,
            (Route::Manifest(name, target), &Method::DELETE) => manifests::delete(self, name, target).await,
            (Route::Manifest(name, target), _) => manifests::get(self, name, target, head).await,
            (Route::Blob(name, digest), &Method::DELETE) => blobs::delete(self, name, digest).await,
            (Route::Blob(name, digest), _) => blobs::get(self, name, digest, head).await,
            (Route::Uploads(name), _) => uploads::begin(self, name, head, body).await,
            (Route::Upload(name, id), &Method::PATCH) => uploads::patch(self, name, id, head, body).await,
            (Route::Upload(name, id), &Method::PUT) => uploads::finish(self, name, id, head, body).await,
            (Route::Upload(name, id), &Method::DELETE) => uploads::cancel(self, name, id).await,
            (Route::Upload(name, id), _) => uploads::status(self, name, id).await,
            (Route::Unknown, _) => Err(Refusal::unsupported("there is nothing at this address")),
        }
    }

    fn writable(&self) -> Result<(), Refusal> {
        if let Some(mirror) = &self.mirror {
            return Err(Refusal::unsupported(format!("this registry is a mirror of {}: push there", mirror.upstream())));
        }
        match self.storage.access() {
            Access::Write => Ok(()),
            Access::Read => Err(Refusal::unsupported("this registry is read-only")),
        }
    }

    async fn metrics(&self) -> Result<Reply, Refusal> {
        let totals = self.with_storage(Storage::totals).await?;
        let text = self.metrics.render(&totals);
        Ok(Reply::document(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
    }

    /// Asks the storage, which blocks.
    pub(super) async fn with_storage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let storage = self.storage.clone();
        blocking(move || work(&storage)).await
    }
}

/// What can be done with the thing that a path names.
fn methods(route: &Route) -> &'static [Method] {
    const READ: &[Method] = &[Method::GET, Method::HEAD];
    match route {
        Route::Base | Route::Metrics | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => READ,
        Route::Manifest(..) => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
        Route::Blob(..) => &[Method::GET, Method::HEAD, Method::DELETE],
        Route::Uploads(_) => &[Method::POST],
        Route::Upload(..) => &[Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE],
        Route::Unknown => &[],
    }
}
