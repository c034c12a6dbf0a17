//! Layers, one above the other: their directories, and of a deep stack what is known of them without asking.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Marks;
use super::catalogue::{Catalogue, Listed};
use crate::path::RootPath;

/// A stack of layers' directories. Cheap to clone. Layers are counted from the top: 0 is the topmost.
#[derive(Clone, Debug)]
pub struct LayerStack(Layers);

#[derive(Clone, Debug)]
enum Layers {
    /// The directories, topmost first.
    Plain(Arc<[PathBuf]>),
    /// The lowest `height` layers of a catalogue.
    Catalogued { catalogue: Arc<RwLock<Catalogue>>, height: usize },
}

impl From<Vec<PathBuf>> for LayerStack {
    /// The stack of these layers, topmost first.
    fn from(topmost_first: Vec<PathBuf>) -> LayerStack {
        LayerStack(Layers::Plain(topmost_first.into()))
    }
}

impl LayerStack {
    /// How many layers there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Layers::Plain(layers) => layers.len(),
            Layers::Catalogued { height, .. } => *height,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The directory of a layer.
    pub fn layer(&self, index: usize) -> Option<PathBuf> {
        match &self.0 {
            Layers::Plain(layers) => layers.get(index).cloned(),
            Layers::Catalogued { height, .. } => self.read()?.layer(height.checked_sub(index + 1)?).cloned(),
        }
    }

    /// The layers that must be asked what they have, topmost first. Of the others the functions below tell.
    pub fn unlisted(&self) -> Vec<usize> {
        match (&self.0, self.read()) {
            (Layers::Catalogued { height, .. }, Some(known)) => known.unlisted(*height).iter().rev().map(|at| height - 1 - at).collect(),
            _ => (0..self.len()).collect(),
        }
    }

    /// Which of the listed layers down to `lowest` have `name` in `directory`, topmost first.
    pub(crate) fn listed(&self, directory: &RootPath, name: &OsStr, lowest: usize) -> Vec<(usize, Listed)> {
        let (Layers::Catalogued { height, .. }, Some(known)) = (&self.0, self.read()) else { return Vec::new() };
        let entries = known.entries(directory, name, *height).iter().rev();
        entries.map(|(at, what)| (height - 1 - at, *what)).take_while(|(index, _)| *index <= lowest).collect()
    }

    /// The topmost of them.
    pub(super) fn topmost(&self, directory: &RootPath, name: &OsStr, lowest: usize) -> Option<(usize, Listed)> {
        let (Layers::Catalogued { height, .. }, Some(known)) = (&self.0, self.read()) else { return None };
        let (at, what) = known.entries(directory, name, *height).last()?;
        Some((height - 1 - at, *what)).filter(|(index, _)| *index <= lowest)
    }

    /// The names in `directory` of the listed layers down to `lowest`, each with the topmost layer that has it.
    pub(super) fn names(&self, directory: &RootPath, lowest: usize) -> Vec<(OsString, (usize, Listed))> {
        let (Layers::Catalogued { height, .. }, Some(known)) = (&self.0, self.read()) else { return Vec::new() };
        let mut names = Vec::new();
        known.for_each_name(directory, *height, |name, layers| {
            let topmost = layers.last().map(|(at, what)| (height - 1 - at, *what)).filter(|(index, _)| *index <= lowest);
            names.extend(topmost.map(|topmost| (name.to_owned(), topmost)));
        });
        names
    }

    fn read(&self) -> Option<RwLockReadGuard<'_, Catalogue>> {
        match &self.0 {
            Layers::Plain(_) => None,
            // Layers are added whole or not at all.
            Layers::Catalogued { catalogue, .. } => Some(catalogue.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// A catalogue that grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct GrowingStack(Arc<RwLock<Catalogue>>);

impl GrowingStack {
    /// Puts layers on top, lowest first. `marks` are theirs.
    pub(crate) fn grow(&self, layers: impl Iterator<Item = PathBuf>, marks: Marks) -> io::Result<()> {
        let mut catalogue = self.0.write().unwrap_or_else(PoisonError::into_inner);
        layers.into_iter().try_for_each(|layer| catalogue.push(layer, marks))
    }

    /// A stack of layers (topmost first) of which some are listed, by index from the bottom, with others above it.
    #[cfg(test)]
    pub(crate) fn partly_listed(layers: &[PathBuf], above: &[PathBuf], is_listed: impl Fn(usize) -> bool) -> LayerStack {
        let mut catalogue = Catalogue::default();
        for (at, layer) in layers.iter().rev().chain(above).enumerate() {
            let room = if is_listed(at) { usize::MAX } else { 0 };
            catalogue.push_within(room, layer.clone(), Marks::Trusted).unwrap();
        }
        GrowingStack(Arc::new(RwLock::new(catalogue))).stack(layers.len())
    }

    /// One that goes another way from `height` on.
    pub(crate) fn branch(&self, height: usize) -> GrowingStack {
        let catalogue = self.0.read().unwrap_or_else(PoisonError::into_inner);
        GrowingStack(Arc::new(RwLock::new(catalogue.up_to(height))))
    }

    /// The stack of the lowest `height` layers.
    pub(crate) fn stack(&self, height: usize) -> LayerStack {
        debug_assert!(height <= self.0.read().unwrap_or_else(PoisonError::into_inner).height(), "the layers were put on before");
        LayerStack(Layers::Catalogued { catalogue: Arc::clone(&self.0), height })
    }
}
