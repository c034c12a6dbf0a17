//! Images made of other images, without running anything: another config, one more layer, all layers in one, another base.
//!
//! An image is opened as a [`Draft`]: its config, and for each layer where it is, which is a blob of some place of [`copy`](super::copy) or a layer of the store that
//! nobody has compressed yet. Edits change the draft. Only `finish` moves bytes, and no more than the destination lacks: an image that stays in its
//! registry gets a new config and a new manifest, and its layers are never fetched.
//!
//! The same edit of the same image gives the same digest: no edit looks at the clock. Media types stay of the kind that they are (OCI's or Docker's), and
//! what an edit does not change keeps its bytes, and so its digest.

mod all;
mod append;
mod changes;
mod conflicts;
mod draft;
mod finish;
mod flatten;
mod rebase;

pub use all::{collect_all, open_all};
pub use append::append;
pub use changes::ConfigChanges;
pub use conflicts::conflicts;
pub use draft::{Draft, DraftLayer, LayerFrom};
pub use flatten::flatten;
pub use rebase::{BASE_DIGEST, BASE_NAME, Refusal, rebase};
