//! Files from web servers, for `ADD`.

use std::error::Error as StdError;

use crate::executor::{Download, Error};
use crate::store::Store;
use crate::task::blocking;

/// Fetches `url` into the store.
pub(super) async fn download(store: &Store, url: &str) -> Result<Download, Error> {
    let failed = |source: Box<dyn StdError + Send + Sync>| Error::Source {
        what: format!("`{}`", crate::diag::SafeUrl::new(url)),
        source,
        hint: Some("check the address, and that this machine can reach it".into()),
    };
    let client = reqwest::Client::builder()
        .user_agent(concat!("strake/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(std::time::Duration::from_secs(30))
        .read_timeout(std::time::Duration::from_secs(60))
        .build()
        .map_err(|error| failed(error.into()))?;
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut response = response.map_err(|error| failed(error.without_url().into()))?;
    let modified = response.headers().get("last-modified").and_then(|value| value.to_str().ok()).and_then(seconds_of);
    let opener = store.clone();
    let mut writer = blocking(move || opener.ingest_new()).await?;
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(error.without_url().into()))? {
        writer = blocking(move || writer.append(&chunk).map(|()| writer)).await?;
    }
    let finisher = store.clone();
    let (digest, path) = blocking(move || {
        let digest = writer.commit_as_is()?;
        let path = finisher.blob_path(&digest)?;
        Ok::<_, crate::store::Error>((digest, path))
    })
    .await?;
    Ok(Download { digest, path, modified })
}

/// An HTTP date in seconds since the epoch.
fn seconds_of(date: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(date).ok()?;
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}
