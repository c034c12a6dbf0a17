//! What files say, checked against the examples and the words of containers-registries.conf(5).

use std::path::Path;

use super::file::{Document, Owner};
use super::*;

fn read(texts: &[&str]) -> Registries {
    let home = tempfile::tempdir().unwrap();
    let main = home.path().join("registries.conf");
    std::fs::create_dir(home.path().join("registries.conf.d")).unwrap();
    for (i, text) in texts.iter().enumerate() {
        let path = if i == 0 { main.clone() } else { home.path().join(format!("registries.conf.d/{i}.conf")) };
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(home.path().join("registries.conf.d/9.txt"), "nonsense").unwrap();
    Registries::load(&RegistriesFiles { user: Some(main), ..RegistriesFiles::default() }).unwrap()
}

fn places(registries: &Registries, name: &str) -> Vec<String> {
    registries.sources(&name.parse().unwrap()).unwrap().iter().map(Reference::to_string).collect()
}

const EXAMPLE: &str = r#"
[[registry]]
prefix = "example.com/foo"
location = "internal.example.net/bar"
[[registry.mirror]]
location = "mirror-0.local/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.local/mirrors/foo/"
insecure = true

[[registry]]
location = "registry.com"
[[registry.mirror]]
location = "mirror.registry.com"
"#;

#[test]
fn mirrors_are_asked_in_order_and_the_location_last() {
    let read = read(&[EXAMPLE]);
    let wanted =
        ["mirror-0.local/mirror-for-foo/image:latest", "mirror-1.local/mirrors/foo/image:latest", "internal.example.net/bar/image:latest"];
    assert_eq!(places(&read, "example.com/foo/image"), wanted);
    assert_eq!(places(&read, "registry.com/image:1"), ["mirror.registry.com/image:1", "registry.com/image:1"]);
    for other in ["example.com/other/image:1", "example.com/foobar:1", "registry.com:5000/image:1", "sub.registry.com/image:1"] {
        assert_eq!(places(&read, other), [other]);
    }
    assert!(read.is_insecure("mirror-1.local/mirrors/foo/image:latest"));
    assert!(!read.is_insecure("mirror-0.local/mirror-for-foo/image:latest"));
}

#[test]
fn the_longest_prefix_counts_down_to_tags() {
    let read = read(&[r#"
        [[registry]]
        location = "example.com"
        blocked = true
        [[registry]]
        location = "example.com/open"
        [[registry]]
        prefix = "example.com/open/app:1"
        location = "other.example.com/app:2"
    "#]);
    assert!(matches!(read.sources(&"example.com/app".parse().unwrap()), Err(Error::Blocked { .. })));
    assert!(read.check_registry("example.com").is_err());
    assert_eq!(places(&read, "example.com/open/app:3"), ["example.com/open/app:3"]);
    assert_eq!(places(&read, "example.com/open/app:1"), ["other.example.com/app:2"]);
}

#[test]
fn a_wildcard_stands_for_any_number_of_names() {
    let read = read(&[r#"
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry.mirror]]
        location = "mirror.local"
        [[registry]]
        location = "good.example.com"
    "#]);
    assert!(read.is_insecure("a.example.com:5000/x:1"));
    for name in ["a.example.com/x:1", "b.a.example.com/x:1"] {
        assert_eq!(places(&read, name), ["mirror.local/x:1", name]);
        assert!(read.is_insecure(name));
    }
    for name in ["example.com/x:1", "notexample.com/x:1", "good.example.com/x:1", "other.net/a.example.com/x:1"] {
        assert_eq!(places(&read, name), [name]);
        assert!(!read.is_insecure(name), "{name}");
    }
}

#[test]
fn mirrors_may_be_for_digests_or_tags_only() {
    let digest = format!("r.io/x@sha256:{}", "0".repeat(64));
    let mirrors = |text: &str, name: &str| places(&read(&[text]), name).len() - 1;
    let each = r#"
        [[registry]]
        location = "r.io"
        [[registry.mirror]]
        location = "a.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "b.io"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "c.io"
    "#;
    assert_eq!(places(&read(&[each]), "r.io/x:1"), ["b.io/x:1", "c.io/x:1", "r.io/x:1"]);
    assert_eq!(mirrors(each, &digest), 2);
    let all = "[[registry]]\nlocation = \"r.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"a.io\"\n";
    assert_eq!((mirrors(all, "r.io/x:1"), mirrors(all, &digest)), (0, 1));
}

#[test]
fn later_files_win_by_prefix_and_by_setting() {
    let read = read(&[
        "unqualified-search-registries = [\"a.io\"]\n[[registry]]\nlocation = \"r.io\"\nblocked = true\n[aliases]\nx = \"a.io/x\"\ny = \"a.io/y\"\n",
        "[[registry]]\nprefix = \"r.io\"\nlocation = \"s.io\"\n[aliases]\nx = \"\"\n",
        "unqualified-search-registries = [\"b.io\"]\n",
    ]);
    assert_eq!(places(&read, "r.io/x:1"), ["s.io/x:1"]);
    let long = |name: &str| read.long_names(&name.parse().unwrap()).unwrap().iter().map(Reference::to_string).collect::<Vec<_>>();
    assert_eq!(long("x:1"), ["b.io/x:1"]);
    assert_eq!(long("y"), ["a.io/y:latest"]);
}

#[test]
fn short_names_mean_docker_hub_until_somebody_says_otherwise() {
    let system = |text: &str| {
        let mut read = Registries::default();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, text).unwrap();
        read.clone_from(&Registries::load(&RegistriesFiles { system: Some(path), ..RegistriesFiles::default() }).unwrap());
        read
    };
    let long = |read: &Registries, name: &str| {
        read.long_names(&name.parse().unwrap()).map(|names| names.iter().map(Reference::to_string).collect::<Vec<_>>())
    };
    let aliases = "[aliases]\nfedora = \"registry.example/fedora\"\n\"acme/app\" = \"docker.io/library/app\"\n";
    assert_eq!(long(&system(aliases), "fedora").unwrap(), ["docker.io/library/fedora:latest"]);
    let search = format!("unqualified-search-registries = [\"a.io:5000\", \"docker.io\"]\n{aliases}");
    assert_eq!(long(&system(&search), "fedora:40").unwrap(), ["registry.example/fedora:40"]);
    assert_eq!(long(&system(&search), "acme/app").unwrap(), ["docker.io/library/app:latest"]);
    assert_eq!(long(&system(&search), "other").unwrap(), ["a.io:5000/other:latest", "docker.io/library/other:latest"]);
    assert_eq!(long(&system(&search), "docker.io/other").unwrap(), ["docker.io/library/other:latest"]);
    let enforcing = format!("short-name-mode = \"enforcing\"\n{search}");
    assert!(matches!(long(&system(&enforcing), "other"), Err(Error::Ambiguous { .. })));
    assert_eq!(long(&system(&enforcing), "fedora").unwrap(), ["registry.example/fedora:latest"]);
    assert_eq!(long(&read(&[aliases]), "fedora").unwrap(), ["registry.example/fedora:latest"]);
}

#[test]
fn the_first_format_is_read_too() {
    let read = read(&[
        "[registries.search]\nregistries = ['a.io']\n[registries.insecure]\nregistries = ['b.io', 'c.io']\n[registries.block]\nregistries = ['c.io']\n",
    ]);
    assert!(read.is_insecure("b.io/x") && !read.is_insecure("a.io/x"));
    assert!(read.check_registry("c.io").is_err() && read.check_registry("b.io").is_ok());
    assert_eq!(read.search, ["a.io"]);
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, line) in [
        ("[[registry]\n", 1),
        ("a = 1\n[[registry]]\nlocation = 5\n", 3),
        ("\n[[registry]]\nblocked = true\n", 2),
        ("[[registry]]\nprefix = \"a.io\"\n", 1),
        ("[[registry]]\nlocation = \"https://a.io\"\n", 2),
        ("[[registry]]\nprefix = \"*.a.io/x\"\n", 2),
        ("[[registry]]\nprefix = \"a.*.io\"\nlocation = \"a.io\"\n", 2),
        ("[[registry]]\nlocation = \"a.io\"\n\n[[registry.mirror]]\ninsecure = true\n", 4),
        ("[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation = \"b.io\"\npull-from-mirror = \"no\"\n", 5),
        ("short-name-mode = \"loud\"\n", 1),
        ("unqualified-search-registries = [\n\"a.io\",\n\"b.io/x\"]\n", 3),
        ("[aliases]\n\"a:1\" = \"b.io/a\"\n", 2),
        ("[aliases]\na = \"b.io/a\"\nb = \"c\"\n", 3),
        ("[[registry]]\nlocation = \"a.io\"\n[registries.search]\nregistries = []\n", 3),
    ] {
        match Document::parse(Path::new("r.conf"), text, Owner::User) {
            Err(error @ Error::Conf { .. }) => assert!(error.to_string().starts_with(&format!("r.conf:{line}: ")), "{text}: {error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn mirrors_of_our_own_settings_take_the_place_of_others() {
    let mirrors = BTreeMap::from([("r.io".to_owned(), vec!["m.io/r".to_owned()])]);
    let read = read(&["[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"n.io\"\n"]);
    let read = read.with_mirrors(&mirrors, Path::new("config.toml")).unwrap();
    assert_eq!(places(&read, "r.io/x:1"), ["m.io/r/x:1", "r.io/x:1"]);
}
