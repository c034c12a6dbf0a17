//! Credential files, helpers and logins, on real files and with real helper programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn inline(text: &str) -> Result<Credentials, Error> {
    Credentials::load(&CredentialFiles { inline: Some(Secret::new(text.to_owned())), ..CredentialFiles::default() })
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: Secret::new(password.to_owned()) }
}

/// A helper that keeps one secret per server in files beside itself.
fn install_helper(folder: &Path, name: &str) {
    let script = r#"#!/bin/sh
dir=$(dirname "$0")/kept; mkdir -p "$dir"
input=$(cat)
case $1 in
get) f=$dir/$(echo "$input" | tr -c 'a-z0-9.\n' _); if [ -f "$f" ]; then cat "$f"; else echo "credentials not found in native keychain"; exit 1; fi ;;
store) server=$(echo "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$input" >"$dir/$(echo "$server" | tr -c 'a-z0-9.\n' _)" ;;
erase) rm "$dir/$(echo "$input" | tr -c 'a-z0-9.\n' _)" ;;
list) echo '{"https://index.docker.io/v1/":"hubuser","ghcr.io":"octo"}' ;;
esac
"#;
    install_script(folder, name, script);
}

fn install_script(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn entries_are_found_under_all_spellings_of_their_registry() {
    // `u:p`
    for (key, registry) in [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://ghcr.io/v2/", "ghcr.io"),
        ("GHCR.io/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
    ] {
        let credentials = inline(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
        assert_eq!(credentials.lookup(registry, "a/b").unwrap(), Some(basic("u", "p")), "{key}");
        assert_eq!(credentials.lookup("quay.io", "a/b").unwrap(), None);
    }
}

#[test]
fn the_longest_path_wins_and_other_repositories_do_not_match() {
    let text = r#"{"auths":{"quay.io":{"auth":"YTox"},"quay.io/acme":{"auth":"Yjoy"},"quay.io/acme/app":{"auth":"Yzoz"}}}"#;
    let credentials = inline(text).unwrap();
    let user = |repository: &str| match credentials.lookup("quay.io", repository).unwrap() {
        Some(Credential::Basic { username, .. }) => username,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (user("acme/app"), user("acme/app/x"), user("acme/application"), user("acme2/app"), user("")),
        ("c".into(), "c".into(), "b".into(), "a".into(), "a".into())
    );
}

#[test]
fn every_form_of_entry_is_understood() {
    let text = r#"{"auths":{
        "a":{"username":"u","password":"p:q"},
        "b":{"identitytoken":"id","auth":"dTo="},
        "c":{"registrytoken":"reg"},
        "d":{"auth":"dTpwOnE"},
        "e":{"auth":null},
        "f":{},
        "g":null},"unknown":[1]}"#;
    let credentials = inline(text).unwrap();
    let get = |host: &str| credentials.lookup(host, "").unwrap();
    assert_eq!(get("a"), Some(basic("u", "p:q")));
    assert_eq!(get("b"), Some(Credential::IdentityToken(Secret::new("id".to_owned()))));
    assert_eq!(get("c"), Some(Credential::RegistryToken(Secret::new("reg".to_owned()))));
    assert_eq!(get("d"), Some(basic("u", "p:q")), "without padding");
    assert_eq!((get("e"), get("f"), get("g")), (None, None, None));
}

#[test]
fn malformed_files_are_named_and_their_secrets_are_not_shown() {
    let error = inline("{\"auths\":{\"a\":{\"auth\":\"c2VjcmV0\"},}}").unwrap_err();
    assert!(error.to_string().contains("DOCKER_AUTH_CONFIG") && error.to_string().contains("line 1"), "{error}");
    let credentials = inline(r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#).unwrap();
    let error = credentials.lookup("a", "").unwrap_err();
    assert!(matches!(&error, Error::BadEntry { key, .. } if key == "a"));
    for shown in [format!("{error} {error:?}"), format!("{credentials:?}")] {
        assert!(!shown.contains("secret") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}

#[test]
fn files_are_asked_in_order_and_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (docker, auth) = (folder.path().join("config.json"), folder.path().join("auth.json"));
    fs::write(&docker, r#"{"auths":{"a":{"auth":"MTpk"}},"HttpHeaders":{"X-A":"b","x-meta-A":"c"}}"#).unwrap();
    fs::write(&auth, r#"{"auths":{"a":{"auth":"Mjpj"},"b":{"auth":"Mjpj"}}}"#).unwrap();
    let auth_json = vec![folder.path().join("missing/auth.json"), auth];
    let files = CredentialFiles { docker_config: Some(docker), auth_json, ..CredentialFiles::default() };
    let credentials = Credentials::load(&files).unwrap();
    assert_eq!(credentials.lookup("a", "").unwrap(), Some(basic("1", "d")));
    assert_eq!(credentials.lookup("b", "").unwrap(), Some(basic("2", "c")));
    assert_eq!(credentials.http_headers(), [("x-meta-A".to_owned(), Secret::new("c".to_owned()))]);
    assert_eq!(credentials.with("a", basic("x", "y")).lookup("a", "r").unwrap(), Some(basic("x", "y")));
}

#[test]
fn a_login_is_kept_with_unknown_fields_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    fs::write(
        &config,
        r#"{"zeta":1,"auths":{"https://ghcr.io":{"auth":"b2xkOm9sZA=="},"quay.io":{"auth":"YTox","x":2}},"alpha":{"b":1,"a":2}}"#,
    )
    .unwrap();
    let target = LoginTarget { config: config.clone(), helper: None, helper_dirs: Vec::new() };
    assert_eq!(save_login(&target, "ghcr.io", "u", &basic("u", "p")).unwrap(), Saved::File(config.clone()));
    save_login(&target, "docker.io", "hub", &Credential::IdentityToken(Secret::new("id".to_owned()))).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let compact: String = text.split_whitespace().collect();
    let expected = concat!(
        r#"{"zeta":1,"auths":{"https://ghcr.io":{"auth":"dTpw"},"quay.io":{"auth":"YTox","x":2},"#,
        r#""https://index.docker.io/v1/":{"auth":"aHViOg==","identitytoken":"id"}},"alpha":{"b":1,"a":2}}"#
    );
    assert_eq!(compact, expected);
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(
        list_logins(&target).unwrap(),
        [
            ("docker.io".to_owned(), Some("hub".to_owned())),
            ("ghcr.io".to_owned(), Some("u".to_owned())),
            ("quay.io".to_owned(), Some("a".to_owned()))
        ]
    );

    assert_eq!(erase_login(&target, "ghcr.io").unwrap(), Saved::File(config.clone()));
    assert_eq!(erase_login(&target, "ghcr.io").unwrap(), Saved::Nothing);
    let credentials = Credentials::load(&CredentialFiles { docker_config: Some(config), ..CredentialFiles::default() }).unwrap();
    assert_eq!(credentials.lookup("ghcr.io", "").unwrap(), None);
    assert_eq!(credentials.lookup("quay.io", "").unwrap(), Some(basic("a", "1")));
}

#[test]
fn a_first_login_makes_the_folder_and_a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("deep/er/config.json");
    let target = LoginTarget { config: config.clone(), helper: None, helper_dirs: Vec::new() };
    assert_eq!(erase_login(&target, "a").unwrap(), Saved::Nothing);
    save_login(&target, "a", "u", &basic("u", "p")).unwrap();
    let link = folder.path().join("link.json");
    std::os::unix::fs::symlink(&config, &link).unwrap();
    save_login(&LoginTarget { config: link.clone(), ..target }, "b", "u", &basic("u", "q")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let credentials = Credentials::load(&CredentialFiles { docker_config: Some(config), ..CredentialFiles::default() }).unwrap();
    assert_eq!(
        (credentials.lookup("a", "").unwrap(), credentials.lookup("b", "").unwrap()),
        (Some(basic("u", "p")), Some(basic("u", "q")))
    );
}

#[test]
fn a_malformed_file_is_left_alone_by_a_login() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    fs::write(&config, "{ not json").unwrap();
    let target = LoginTarget { config: config.clone(), helper: None, helper_dirs: Vec::new() };
    assert!(matches!(save_login(&target, "a", "u", &basic("u", "p")), Err(Error::Malformed { .. })));
    assert_eq!(fs::read_to_string(&config).unwrap(), "{ not json");
}

#[test]
fn logins_at_the_same_time_all_survive() {
    let folder = tempfile::tempdir().unwrap();
    let target = LoginTarget { config: folder.path().join("config.json"), helper: None, helper_dirs: Vec::new() };
    std::thread::scope(|scope| {
        for i in 0..8 {
            let target = &target;
            scope.spawn(move || save_login(target, &format!("r{i}.io"), "u", &basic("u", "p")).unwrap());
        }
    });
    assert_eq!(list_logins(&target).unwrap().len(), 8);
}

#[test]
fn a_helper_keeps_what_config_json_only_names() {
    let folder = tempfile::tempdir().unwrap();
    install_helper(folder.path(), "test");
    let config = folder.path().join("config.json");
    fs::write(&config, r#"{"credsStore":"test","credHelpers":{"plain.io":""}}"#).unwrap();
    let helper_dirs = vec![folder.path().to_owned()];
    let target = LoginTarget { config: config.clone(), helper: None, helper_dirs: helper_dirs.clone() };
    assert_eq!(save_login(&target, "docker.io", "u", &basic("u", "hidden")).unwrap(), Saved::Helper("test".to_owned()));
    assert!(matches!(save_login(&target, "plain.io", "u", &basic("u", "p")).unwrap(), Saved::File(_)));
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains("hidden") && text.contains(r#""https://index.docker.io/v1/": {}"#), "{text}");

    let files = CredentialFiles { docker_config: Some(config), helper_dirs, ..CredentialFiles::default() };
    let credentials = Credentials::load(&files).unwrap();
    assert_eq!(credentials.lookup("docker.io", "library/debian").unwrap(), Some(basic("u", "hidden")));
    assert_eq!(credentials.lookup("quay.io", "").unwrap(), None, "not found is not an error");
    assert_eq!(list_logins(&target).unwrap().len(), 3);
    assert_eq!(erase_login(&target, "docker.io").unwrap(), Saved::Helper("test".to_owned()));
    assert_eq!(credentials.lookup("docker.io", "").unwrap(), None);
}

#[test]
fn helpers_give_identity_tokens_and_may_fail() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = vec![folder.path().to_owned()];
    install_script(folder.path(), "token", "#!/bin/sh\necho '{\"Username\":\"<token>\",\"Secret\":\"id\"}'\n");
    install_script(folder.path(), "broken", "#!/bin/sh\necho 'the keyring is locked'; exit 2\n");
    install_script(folder.path(), "babble", "#!/bin/sh\necho 'secret but not json'\n");
    install_script(folder.path(), "slow", "#!/bin/sh\nexec sleep 60\n");
    let get = |name: &str| Helper::new(name, &dirs).unwrap().get("a");
    assert_eq!(get("token").unwrap(), Some(Credential::IdentityToken(Secret::new("id".to_owned()))));
    assert!(get("broken").unwrap_err().to_string().contains("the keyring is locked"));
    assert!(!format!("{:?}", get("babble").unwrap_err()).contains("secret"));
    let missing = get("no-such-helper-anywhere").unwrap_err();
    assert!(missing.hint().unwrap().contains("credsStore"));
    let begin = Instant::now();
    let slow = Helper::new("slow", &dirs).unwrap().with_time_limit(Duration::from_millis(200));
    assert!(slow.get("a").unwrap_err().to_string().contains("did not end"));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(matches!(Helper::new("../evil", &dirs), Err(Error::HelperName { .. })));
}
