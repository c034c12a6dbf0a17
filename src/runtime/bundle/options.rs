//! Options of a mount: from the words of `mounts.options` to what the kernel is told.
//!
//! The words are those of mount(8) with the recursive ones of the specification (config.md, "Linux mount options"); what is none of them is data for the file system.

use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// All bits of the access time setting; relative access times are none of them set.
const MOUNT_ATTR_ATIME: u64 = 0x70;
const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// What is to become of a mount's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) set: u64,
    pub(super) clear: u64,
}

impl Attributes {
    fn apply(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        // The kernel wants all bits of the access time cleared where one is set.
        self.clear = (self.clear & !set) | clear;
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

/// What the words say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether it is a bind mount, and if so whether mounts below the source come along.
    pub(super) bind: Option<bool>,
    /// Attributes of this mount.
    pub(super) own: Attributes,
    /// Attributes of this mount and of all below.
    pub(super) recursive: Attributes,
    /// Propagation types in order (`MS_*`), each also for mounts below or not.
    pub(super) propagation: Vec<(u64, bool)>,
    /// Whether what the mount point holds is copied into a new file system.
    pub(super) copy_up: bool,
    /// What the file system is told; a key without a value is a flag.
    pub(super) data: Vec<(String, Option<String>)>,
    /// Whether its IDs are shown as others, and if so whether those of mounts below are as well.
    pub(super) id_mapped: Option<bool>,
}

/// Attributes: the word, what it sets, what it clears.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, MOUNT_ATTR_RDONLY),
    ("nosuid", MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, MOUNT_ATTR_NOSUID),
    ("nodev", MOUNT_ATTR_NODEV, 0),
    ("dev", 0, MOUNT_ATTR_NODEV),
    ("noexec", MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, MOUNT_ATTR_NOEXEC),
    ("noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    ("atime", 0, MOUNT_ATTR_ATIME),
    ("relatime", 0, MOUNT_ATTR_ATIME),
    ("strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    ("norelatime", 0, MOUNT_ATTR_ATIME),
    ("nostrictatime", 0, MOUNT_ATTR_ATIME),
    ("nodiratime", MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0),
];

const PROPAGATIONS: [(&str, u64); 4] =
    [("private", libc::MS_PRIVATE), ("slave", libc::MS_SLAVE), ("shared", libc::MS_SHARED), ("unbindable", libc::MS_UNBINDABLE)];

/// What says nothing to a new mount interface, or is the default.
const IGNORED: [&str; 7] = ["defaults", "remount", "silent", "loud", "nomand", "async", "noiversion"];

/// A propagation type by its name, as in `rootfsPropagation`, and whether it is for mounts below as well.
pub(super) fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |name: &str| PROPAGATIONS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
    find(word).map(|flag| (flag, false)).or_else(|| find(word.strip_prefix('r')?).map(|flag| (flag, true)))
}

fn attribute(word: &str) -> Option<(u64, u64)> {
    match word {
        "symfollow" => Some((0, MOUNT_ATTR_NOSYMFOLLOW)),
        _ => ATTRIBUTES.iter().find(|(known, ..)| *known == word).map(|(_, set, clear)| (*set, *clear)),
    }
}

impl Options {
    /// Takes the words in; later ones win.
    pub(super) fn parse(words: &[String]) -> Options {
        let mut options = Options::default();
        for word in words {
            options.take(word);
        }
        options
    }

    fn take(&mut self, word: &str) {
        if let Some((set, clear)) = attribute(word) {
            self.own.apply(set, clear);
            return;
        }
        if let Some((set, clear)) = word.strip_prefix('r').and_then(attribute) {
            self.recursive.apply(set, clear);
            return;
        }
        if let Some(kind) = propagation(word) {
            self.propagation.push(kind);
            return;
        }
        match word {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_mapped = Some(self.id_mapped.unwrap_or(false)),
            "ridmap" => self.id_mapped = Some(true),
            "" => {}
            _ if IGNORED.contains(&word) => {}
            _ => match word.split_once('=') {
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((word.to_owned(), None)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_of_a_tmpfs_become_attributes_and_data() {
        let options = parse("nosuid,strictatime,mode=755,size=65536k,ro");
        assert_eq!(options.own.set, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_RDONLY);
        assert_eq!(options.data, [("mode".to_owned(), Some("755".to_owned())), ("size".to_owned(), Some("65536k".to_owned()))]);
        assert_eq!(options.bind, None);
    }

    #[test]
    fn recursive_words_are_kept_apart() {
        let options = parse("rbind,ro,rnoexec,rrw,rslave,private");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.own, Attributes { set: MOUNT_ATTR_RDONLY, clear: 0 });
        assert_eq!(options.recursive, Attributes { set: MOUNT_ATTR_NOEXEC, clear: MOUNT_ATTR_RDONLY });
        assert_eq!(options.propagation, [(libc::MS_SLAVE, true), (libc::MS_PRIVATE, false)]);
        assert!(options.data.is_empty());
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parse("ro,rw").own, Attributes { set: 0, clear: MOUNT_ATTR_RDONLY });
        assert_eq!(parse("noatime,relatime").own, Attributes { set: 0, clear: MOUNT_ATTR_ATIME });
    }
}
