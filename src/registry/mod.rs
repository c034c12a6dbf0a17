//! The registry client (distribution-spec 1.1): names to manifests, verified byte streams out, byte sources in.
//!
//! What comes out of here has been checked: every manifest and every blob is hashed while it arrives, and a wrong byte, a byte too many or one too
//! few is an error, never an end of file. What may go wrong on a network is dealt with here: cuts (resumed by range), full servers (429, 5xx,
//! `Retry-After`), tokens that run out in the middle, refused chunks, redirects. Each call ends in success or in one clear error in bounded time.
//!
//! Invariants: `Authorization` is sent to the origin that asked for it and to no other; secrets are in no error, warning or `Debug` output; this
//! folder knows nothing of the store, prints nothing, and reads neither environment variables nor `$HOME` (paths of credential files are given).
//!
//! Layers, top down: [`Client`] and its operations (`manifests`, `referrers`, `download`, `upload`, `login`), `transport` (authorize, follow redirects, time
//! limits), `auth` (challenges and tokens), `connect` (TLS and connections), `host` (which URL a registry's name stands for), `conf` (`registries.conf`: where names
//! are looked for; `places` asks there).

mod auth;
mod client;
mod conf;
mod connect;
mod credentials;
mod download;
mod error;
mod headers;
mod host;
mod login;
mod manifests;
mod options;
mod places;
mod proxy;
mod referrers;
mod retry;
mod scrub;
mod search;
mod source;
mod transport;
mod upload;

pub use client::Client;
pub use conf::{Registries, RegistriesFiles};
pub use credentials::{
    Credential, CredentialFiles, Credentials, Error as CredentialError, HelperOrder, LoginTarget, Saved, configured_proxies, erase_login,
    erase_logins, list_logins, save_login,
};
pub use download::BlobStream;
pub(crate) use error::tame;
pub use error::{Error, RegistryCode, StatusError, TransportCause};
pub use login::LoginOutcome;
pub use manifests::FetchedManifest;
pub use options::{CertificateFiles, ClientOptions, Proxies, RetryPolicy};
pub use search::FoundRepository;
pub use source::{BlobSource, ByteStream, FileSource, read_stream};
pub use upload::{BlobUpload, MountOutcome, Progress, Uploaded};

#[cfg(test)]
mod tests;
