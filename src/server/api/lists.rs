//! Lists: repositories, tags, referrers (distribution-spec 1.1, "Content Discovery").

use hyper::StatusCode;
use hyper::header::LINK;
use serde_json::json;

use crate::oci::{Descriptor, Digest, MediaType};

use super::super::reply::{OCI_FILTERS, Refusal, Reply};
use super::super::request::Head;
use super::super::route::Query;
use super::super::storage::Page;
use super::Service;

/// A list of referrers has at most about so many bytes, since it must not be larger than a manifest may be.
const REFERRERS_LIMIT: usize = 3 << 20;

/// Referrers that are looked at for one page.
const REFERRERS_PAGE: u32 = 2000;

/// `GET /v2/_catalog`.
pub(super) async fn catalog(service: &Service, head: &Head) -> Result<Reply, Refusal> {
    let page = page(&head.query)?;
    let asked = page.clone();
    let (names, more) = service.with_storage(move |storage| storage.repositories(&asked)).await?;
    let reply = Reply::json(StatusCode::OK, &json!({ "repositories": names }));
    Ok(linked(reply, "/v2/_catalog", &page, names.last().filter(|_| more)))
}

/// `GET /v2/NAME/tags/list`.
pub(super) async fn tags(service: &Service, name: &str, head: &Head) -> Result<Reply, Refusal> {
    let page = page(&head.query)?;
    let (repository, asked) = (name.to_owned(), page.clone());
    let found = match &service.mirror {
        Some(mirror) => mirror.tags(name, &page).await?,
        None => service.with_storage(move |storage| storage.tags(&repository, &asked)).await?,
    };
    let (tags, more) = found.ok_or_else(|| Refusal::unknown_name(name))?;
    let reply = Reply::json(StatusCode::OK, &json!({ "name": name, "tags": tags }));
    Ok(linked(reply, &format!("/v2/{name}/tags/list"), &page, tags.last().filter(|_| more)))
}

/// `GET /v2/NAME/referrers/DIGEST`. A repository or subject that nobody knows has no referrers, which is no error.
pub(super) async fn referrers(service: &Service, name: &str, subject: &Digest, head: &Head) -> Result<Reply, Refusal> {
    let wanted = head.query.get("artifactType").filter(|kind| !kind.is_empty()).map(str::to_owned);
    let after = head.query.get("last").map(str::to_owned);
    let (mut found, mut more) = match &service.mirror {
        Some(mirror) => (mirror.referrers(name, subject, wanted.as_deref(), after.as_deref()).await?, false),
        None => {
            let (repository, subject, wanted) = (name.to_owned(), subject.clone(), wanted.clone());
            let page = Page { limit: Some(REFERRERS_PAGE), after };
            service.with_storage(move |storage| storage.referrers(&repository, &subject, wanted.as_deref(), &page)).await?
        }
    };
    let fits = fitting(&found);
    if fits < found.len() {
        found.truncate(fits);
        more = true;
    }
    let kind = MediaType::OciIndex.to_string();
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": found });
    let mut reply = Reply::document(StatusCode::OK, &kind, index.to_string());
    if wanted.is_some() {
        reply = reply.with(OCI_FILTERS, "artifactType");
    }
    if let Some(last) = found.last().filter(|_| more) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.digest.to_string());
        if let Some(wanted) = &wanted {
            query.append_pair("artifactType", wanted);
        }
        reply = reply.with(LINK, &format!("</v2/{name}/referrers/{subject}?{}>; rel=\"next\"", query.finish()));
    }
    Ok(reply)
}

/// How many of the descriptors fit into one list; at least one.
fn fitting(found: &[Descriptor]) -> usize {
    let mut left = REFERRERS_LIMIT;
    let fits = found.iter().take_while(|descriptor| {
        let size = serde_json::to_string(descriptor).map_or(0, |text| text.len());
        left.checked_sub(size).map(|less| left = less).is_some()
    });
    fits.count().max(found.len().min(1))
}

/// The parameters `n` and `last`.
fn page(query: &Query) -> Result<Page, Refusal> {
    let limit = match query.get("n") {
        None => None,
        Some(text) => {
            let bad =
                |_| Refusal::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", format!("`n` is `{text}`, and must be a number"));
            Some(text.parse::<u64>().map_err(bad)?.min(u64::from(u32::MAX)) as u32)
        }
    };
    Ok(Page { limit, after: query.get("last").filter(|last| !last.is_empty()).map(str::to_owned) })
}

/// Adds where the next page is, if there is one after `last`.
fn linked(reply: Reply, path: &str, page: &Page, last: Option<&String>) -> Reply {
    let (Some(last), Some(limit)) = (last, page.limit) else { return reply };
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("n", &limit.to_string()).append_pair("last", last).finish();
    reply.with(LINK, &format!("<{path}?{query}>; rel=\"next\""))
}
