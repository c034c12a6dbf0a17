//! Who `USER` and `--chown` mean, in the root file system that they apply to.
//!
//! `/etc/passwd` and `/etc/group` belong to the image, so they are read through its tree, with links followed inside of it, and only if they are regular files
//! of sane size. What a line lacks is empty or 0; a number that nobody can have is an error once it is meant. A number needs no entry.

use std::io::Read;

use super::copy::Owner;
use super::error::Error;
use crate::diag::did_you_mean;
use crate::path::RootPath;
use crate::sys::tree::{Kind, LastLink, Tree, resolve};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The largest file of users or groups that is read.
const MAX_FILE: u64 = 10 * 1024 * 1024;

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUser {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups: the primary one, which files may deny what they allow to others, and then the rest, sorted.
    pub additional_gids: Vec<u32>,
    /// The home directory, where `/etc/passwd` has one.
    pub home: Option<String>,
}

/// Whom files belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedOwner {
    /// The owner.
    pub owner: Owner,
    /// What the user should know: a name was not found, and what was taken instead.
    pub warning: Option<String>,
}

struct User<'a> {
    name: &'a str,
    uid: Number,
    gid: Number,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: Number,
    members: &'a str,
}

/// Resolves the value of `USER`: `user`, `uid`, `user:group` and all their mixtures. Empty means root.
pub fn lookup_user(tree: &dyn Tree, spec: &str) -> Result<ProcessUser, Error> {
    let mut user = find_user(tree, spec)?;
    user.additional_gids.insert(0, user.gid);
    Ok(user)
}

/// The same, with the other groups only.
fn find_user(tree: &dyn Tree, spec: &str) -> Result<ProcessUser, Error> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let number = parse_number(spec, user)?;
    let passwd = match read(tree, PASSWD) {
        // Then it would only say where the home directory is.
        Err(Error::UserFile { .. }) if user.is_empty() || group.is_some() && number.is_some() => String::new(),
        read => read?,
    };
    let entry = match number {
        Some(uid) => users(&passwd).find(|entry| entry.uid == Number(Some(uid))),
        // Without a name, root; also in an image that has no users.
        None if user.is_empty() => users(&passwd).find(|entry| entry.uid == Number(Some(0))),
        None => Some(users(&passwd).find(|entry| entry.name == user).ok_or_else(|| unknown_user(&passwd, user))?),
    };
    let uid = entry.as_ref().map_or(Ok(number.unwrap_or(0)), |entry| entry.uid.of(PASSWD, entry.name))?;
    let home = entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).map(str::to_owned);
    if let Some(group) = group {
        let gid = match parse_number(spec, group)? {
            Some(gid) => gid,
            None => find_group(tree, group)?,
        };
        return Ok(ProcessUser { uid, gid, additional_gids: Vec::new(), home });
    }
    let Some(entry) = entry else { return Ok(ProcessUser { uid, gid: 0, additional_gids: Vec::new(), home }) };
    let gid = entry.gid.of(PASSWD, entry.name)?;
    let file = match read(tree, GROUP) {
        Err(Error::UserFile { .. }) if user.is_empty() => String::new(),
        read => read?,
    };
    let member = |group: &Group<'_>| group.gid != entry.gid && group.members.split(',').any(|member| member == entry.name);
    let mut additional_gids = groups(&file).filter(member).map(|group| group.gid.of(GROUP, group.name)).collect::<Result<Vec<u32>, _>>()?;
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Ok(ProcessUser { uid, gid, additional_gids, home })
}

/// Resolves the value of `--chown`, and the owner of what `WORKDIR` makes. Not as for a process: a user's number alone is the group's too, a part that is empty
/// is 0, `root` is 0 whatever the files say, and a name that nobody has changes nothing (an unknown user is 0, an unknown group the user's own), with a warning.
pub fn lookup_owner(tree: &dyn Tree, spec: &str) -> Result<ResolvedOwner, Error> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let mut unknown = Vec::new();
    let mut owner = Owner { uid: 0, gid: 0 };
    match owner_number(user) {
        Some(uid) => owner = Owner { uid, gid: uid },
        None => {
            let passwd = read(tree, PASSWD)?;
            match users(&passwd).find(|entry| entry.name == user) {
                Some(entry) => owner = Owner { uid: entry.uid.of(PASSWD, user)?, gid: entry.gid.of(PASSWD, user)? },
                None => unknown.push(format!("user `{user}`")),
            }
        }
    }
    if let Some(group) = group {
        match owner_number(group) {
            Some(gid) => owner.gid = gid,
            None => {
                let file = read(tree, GROUP)?;
                match groups(&file).find(|entry| entry.name == group) {
                    Some(entry) => owner.gid = entry.gid.of(GROUP, group)?,
                    None => unknown.push(format!("group `{group}`")),
                }
            }
        }
    }
    let warning = (!unknown.is_empty())
        .then(|| format!("the root file system has no {}, so `{spec}` is taken for {}:{}", unknown.join(" and no "), owner.uid, owner.gid));
    Ok(ResolvedOwner { owner, warning })
}

/// The number of a part of `--chown` that needs no lookup; `None` for a name. What does not fit into 31 bits is a name, as in BuildKit.
fn owner_number(text: &str) -> Option<u32> {
    if matches!(text, "" | "root") {
        return Some(0);
    }
    text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok())
}

/// The number that `text` is; `None` for a name. What starts like a number and is too large for one is an error, not a name.
fn parse_number(spec: &str, text: &str) -> Result<Option<u32>, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    // The largest means "do not change" to the kernel.
    match text.parse::<u32>() {
        Ok(number) if number < u32::MAX => Ok(Some(number)),
        _ => Err(Error::BadUser { spec: spec.to_owned(), reason: "the number is too large" }),
    }
}

fn find_group(tree: &dyn Tree, name: &str) -> Result<u32, Error> {
    let file = read(tree, GROUP)?;
    if let Some(group) = groups(&file).find(|entry| entry.name == name) {
        return group.gid.of(GROUP, name);
    }
    let near = did_you_mean(name, groups(&file).map(|entry| entry.name)).map(str::to_owned);
    Err(Error::UnknownGroup { name: name.to_owned(), near })
}

fn unknown_user(passwd: &str, name: &str) -> Error {
    let near = did_you_mean(name, users(passwd).map(|entry| entry.name)).map(str::to_owned);
    Error::UnknownUser { name: name.to_owned(), near }
}

/// The lines of a file of users or groups, in fields. As in runc and BuildKit, what is missing at the end of a line is empty, and a number that is none is 0.
fn entries(file: &str) -> impl Iterator<Item = std::str::Split<'_, char>> {
    file.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| line.split(':'))
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    entries(passwd).map(|mut fields| {
        let (name, _password) = (fields.next().unwrap_or_default(), fields.next());
        let (uid, gid) = (number(fields.next()), number(fields.next()));
        let home = fields.nth(1).unwrap_or_default();
        User { name, uid, gid, home }
    })
}

fn groups(file: &str) -> impl Iterator<Item = Group<'_>> {
    entries(file).map(|mut fields| {
        let (name, _password) = (fields.next().unwrap_or_default(), fields.next());
        Group { name, gid: number(fields.next()), members: fields.next().unwrap_or_default() }
    })
}

/// The number of a user or a group in a file; none where nobody can have it: it is negative, or does not fit into 32 bits. Those of others' lines do no harm.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Number(Option<u32>);

impl Number {
    /// The number, of what `file` calls `name`.
    fn of(self, file: &'static str, name: &str) -> Result<u32, Error> {
        self.0.ok_or_else(|| Error::UserNumber { name: name.to_owned(), file })
    }
}

fn number(field: Option<&str>) -> Number {
    let field = field.unwrap_or_default();
    let digits = field.strip_prefix(['-', '+']).unwrap_or(field);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Number(Some(0));
    }
    // The largest means "do not change" to the kernel.
    Number(field.parse().ok().filter(|number| *number != u32::MAX))
}

/// A file of users or groups; empty where there is none.
fn read(tree: &dyn Tree, path: &str) -> Result<String, Error> {
    let path = RootPath::new(path);
    let failed = |source| Error::ReadBase { path: path.clone(), source };
    let unusable = |reason| Error::UserFile { path: path.clone(), reason };
    let resolved = resolve(tree, &path, LastLink::Follow).map_err(failed)?;
    let Some(metadata) = tree.metadata(&resolved).map_err(failed)? else { return Ok(String::new()) };
    if metadata.kind != Kind::File {
        return Err(unusable("it is not a regular file"));
    }
    let mut content = Vec::new();
    tree.open(&resolved).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE {
        return Err(unusable("it is larger than 10 MiB"));
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}
