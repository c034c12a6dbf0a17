//! Which files there are, and how they come together (containers-registries.conf.d(5)).

use std::io;
use std::path::{Path, PathBuf};

use super::super::error::Error;
use super::file::{Document, Owner};
use super::{Registries, Rule};

/// The files of a machine and of a user. All may be missing, but for one that was asked for.
#[derive(Clone, Debug, Default)]
pub struct RegistriesFiles {
    /// The file that the user asked for (`CONTAINERS_REGISTRIES_CONF`); it takes the place of both others.
    pub asked: Option<PathBuf>,
    /// The user's file. Where it is, the machine's files are not read.
    pub user: Option<PathBuf>,
    /// The machine's file.
    pub system: Option<PathBuf>,
}

impl Registries {
    /// Reads all files that count: the main one, then the drop-in files beside it in the order of their names. What a later one says wins.
    ///
    /// # Errors
    /// A file that exists (or was asked for) and cannot be read, or means nothing; with its line.
    pub fn load(files: &RegistriesFiles) -> Result<Registries, Error> {
        let mut read = Registries::default();
        let user = files.user.as_deref().map(|path| (path, Owner::User));
        let system = files.system.as_deref().map(|path| (path, Owner::System));
        let mut folders = vec![system, user];
        if let Some(path) = &files.asked {
            read.add(Document::parse(path, &text_of(path)?, Owner::User)?);
        } else if let Some((path, text)) = existing(user)? {
            read.add(Document::parse(path, &text, Owner::User)?);
            folders = vec![user];
        } else if let Some((path, text)) = existing(system)? {
            read.add(Document::parse(path, &text, Owner::System)?);
        }
        for (main, owner) in folders.into_iter().flatten() {
            for path in drop_ins(&main.with_extension("conf.d"))? {
                read.add(Document::parse(&path, &text_of(&path)?, owner)?);
            }
        }
        Ok(read)
    }

    /// Takes over what a file says.
    fn add(&mut self, document: Document) {
        for rule in document.rules {
            self.rules.retain(|known: &Rule| known.prefix != rule.prefix);
            self.rules.push(rule);
        }
        if let Some(search) = document.search {
            self.search = search;
        }
        if let Some(mode) = document.mode {
            self.mode = mode;
        }
        if let Some(helpers) = document.helpers {
            self.helpers = helpers;
        }
        for (short, alias) in document.aliases {
            match alias {
                Some(alias) => self.aliases.insert(short, alias),
                None => self.aliases.remove(&short),
            };
        }
    }
}

fn text_of(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::ConfRead { path: path.to_owned(), source })
}

fn existing(file: Option<(&Path, Owner)>) -> Result<Option<(&Path, String)>, Error> {
    let Some((path, _)) = file else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(source) => Err(Error::ConfRead { path: path.to_owned(), source }),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(source) => return Err(Error::ConfRead { path: folder.to_owned(), source }),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| Error::ConfRead { path: folder.to_owned(), source })?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
