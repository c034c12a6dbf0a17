//! `--cache-from` and `--cache-to` of `strake build`.

use std::collections::BTreeMap;

use crate::diag::did_you_mean;
use crate::engine::{CacheDestination, CacheMode, CacheRepository, CacheSource, CacheTarget, Compression, Layout};
use crate::oci::Reference;

use super::outputs::{at_level, boolean, compression, split};

/// The keys of `--cache-from`, for each type.
const FROM_LOCAL: &[&str] = &["type", "src", "tag", "digest"];
const FROM_REGISTRY: &[&str] = &["type", "ref", "registry.insecure"];

/// The keys of `--cache-to`, for each type.
const TO_PACKED: &[&str] =
    &["type", "mode", "compression", "compression-level", "force-compression", "oci-mediatypes", "image-manifest", "ignore-error"];
const TO_LOCAL: &[&str] = &["dest", "tag", "reset"];
const TO_REGISTRY: &[&str] = &["ref", "registry.insecure"];

/// Reads `--cache-from`, for clap. Without any `=` it is a list of names in registries.
pub(super) fn cache_from(text: &str) -> Result<Sources, String> {
    // What a script leaves empty is none, as with buildx.
    if text.is_empty() {
        return Ok(Sources(Vec::new()));
    }
    let fields = split(text)?;
    if !fields.iter().any(|field| field.contains('=')) {
        return fields.iter().map(|name| repository(name, false).map(CacheSource::Registry)).collect::<Result<_, _>>().map(Sources);
    }
    let mut fields = Fields::read(&fields)?;
    let source = match fields.kind()?.as_str() {
        "local" => {
            fields.allow("local", &[FROM_LOCAL])?;
            let dir = fields.needs("src")?.into();
            let digest = fields.take("digest").map(|text| text.parse().map_err(|_| format!("`{text}` is not a digest"))).transpose()?;
            CacheSource::Local(Layout { dir, tag: fields.take("tag").or_else(|| Some("latest".to_owned())), digest })
        }
        "registry" => {
            fields.allow("registry", &[FROM_REGISTRY])?;
            let insecure = fields.switch("registry.insecure", false)?;
            CacheSource::Registry(repository(&fields.needs("ref")?, insecure)?)
        }
        "inline" => return Err("a cache in an image is imported with `type=registry,ref=IMAGE`".into()),
        kind => return Err(unknown_kind(kind)),
    };
    Ok(Sources(vec![source]))
}

/// What one `--cache-from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources(pub(super) Vec<CacheSource>);

/// Reads `--cache-to`, for clap. Without any `=` it is a name in a registry; empty is none, as for `--cache-from`.
pub(super) fn cache_to(text: &str) -> Result<Option<CacheTarget>, String> {
    if text.is_empty() { Ok(None) } else { given_target(text).map(Some) }
}

fn given_target(text: &str) -> Result<CacheTarget, String> {
    let fields = split(text)?;
    if !fields.iter().any(|field| field.contains('=')) {
        let [name] = fields.as_slice() else { return Err("a cache goes to one place: give `--cache-to` several times".into()) };
        return Ok(target(CacheDestination::Registry(repository(name, false)?)));
    }
    let mut fields = Fields::read(&fields)?;
    let to = match fields.kind()?.as_str() {
        "local" => {
            fields.allow("local", &[TO_PACKED, TO_LOCAL])?;
            let (tag, reset) = (fields.take("tag"), fields.switch("reset", false)?);
            CacheDestination::Local { dir: fields.needs("dest")?.into(), tag: tag.unwrap_or_else(|| "latest".to_owned()), reset }
        }
        "registry" => {
            fields.allow("registry", &[TO_PACKED, TO_REGISTRY])?;
            let insecure = fields.switch("registry.insecure", false)?;
            CacheDestination::Registry(repository(&fields.needs("ref")?, insecure)?)
        }
        "inline" => {
            fields.allow("inline", &[&["type", "mode", "ignore-error"]])?;
            if fields.values.get("mode").is_some_and(|mode| mode != "min") {
                return Err("a cache in an image has the layers of the image only: `mode=max` needs `type=registry` or `type=local`".into());
            }
            CacheDestination::Inline
        }
        kind => return Err(unknown_kind(kind)),
    };
    fields.packed(to)
}

/// Where a cache goes when nothing else is said of it.
pub(super) fn target(to: CacheDestination) -> CacheTarget {
    CacheTarget { to, mode: CacheMode::Min, compression: None, force: false, ignore_error: false }
}

fn repository(name: &str, insecure: bool) -> Result<CacheRepository, String> {
    let bad = |error: crate::oci::ReferenceError| format!("`{name}` is no name for a cache: {}", error.reason);
    Ok(CacheRepository { reference: name.parse::<Reference>().map_err(bad)?, insecure })
}

fn unknown_kind(kind: &str) -> String {
    const KINDS: [&str; 3] = ["local", "registry", "inline"];
    match did_you_mean(kind, KINDS) {
        Some(near) => format!("the cache type `{kind}` is not known: did you mean `{near}`?"),
        None => format!("the cache type `{kind}` is not supported: expected {}", KINDS.join(", ")),
    }
}

/// The fields of a cache, by key.
struct Fields {
    values: BTreeMap<String, String>,
}

impl Fields {
    fn read(fields: &[String]) -> Result<Fields, String> {
        let mut values = BTreeMap::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
            let key = key.trim().to_lowercase();
            if values.insert(key.clone(), value.to_owned()).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        Ok(Fields { values })
    }

    fn kind(&self) -> Result<String, String> {
        self.values.get("type").cloned().ok_or_else(|| "`type=` is missing".to_owned())
    }

    /// Refuses keys that mean nothing here.
    fn allow(&self, kind: &str, groups: &[&[&str]]) -> Result<(), String> {
        let allowed = || groups.iter().flat_map(|keys| keys.iter().copied());
        match self.values.keys().find(|key| !allowed().any(|known| known == key.as_str())) {
            None => Ok(()),
            Some(key) => Err(match did_you_mean(key, allowed()) {
                Some(near) => format!("`type={kind}` has no key `{key}`: did you mean `{near}`?"),
                None => format!("`type={kind}` has no key `{key}`: expected {}", allowed().collect::<Vec<_>>().join(", ")),
            }),
        }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    fn needs(&mut self, key: &str) -> Result<String, String> {
        self.take(key).filter(|value| !value.is_empty()).ok_or_else(|| format!("`{key}=` is missing"))
    }

    fn switch(&mut self, key: &str, default: bool) -> Result<bool, String> {
        self.take(key).map_or(Ok(default), |value| boolean(key, &value))
    }

    fn packed(mut self, to: CacheDestination) -> Result<CacheTarget, String> {
        let mode = match self.take("mode").as_deref() {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => return Err(format!("`mode` is min or max, not `{other}`")),
        };
        for key in ["oci-mediatypes", "image-manifest"] {
            if !self.switch(key, true)? {
                return Err(format!("`{key}=false` is not supported: a cache is an OCI artifact with an image manifest"));
            }
        }
        let level = self.take("compression-level");
        let level = level.map(|text| text.parse().map_err(|_| format!("`compression-level` is a number, not `{text}`"))).transpose()?;
        let kind = self.take("compression").map(|text| compression(&text)).transpose()?;
        let force = self.switch("force-compression", false)?;
        let named = kind.is_some() || level.is_some();
        let compression = named.then(|| at_level(kind.unwrap_or(Compression::Gzip), level)).transpose()?;
        Ok(CacheTarget { to, mode, compression, force, ignore_error: self.switch("ignore-error", false)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::CompressionSpec;

    #[test]
    fn names_without_type_are_in_registries() {
        let Sources(sources) = cache_from("user/app:cache,reg.example/b").unwrap();
        let names: Vec<_> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["user/app:cache", "reg.example/b:latest"]);
        assert!(matches!(given_target("user/app:cache").unwrap().to, CacheDestination::Registry(_)));
    }

    #[test]
    fn what_a_script_leaves_empty_is_none() {
        assert_eq!((cache_from("").unwrap().0, cache_to("").unwrap()), (Vec::new(), None));
    }

    #[test]
    fn every_key_of_a_target_is_read() {
        let all = "type=local,dest=d,tag=t,reset=true,mode=max,compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=true,image-manifest=true,ignore-error=1";
        let expected = CacheTarget {
            to: CacheDestination::Local { dir: "d".into(), tag: "t".into(), reset: true },
            mode: CacheMode::Max,
            compression: Some(CompressionSpec { kind: Compression::Zstd, level: Some(9) }),
            force: true,
            ignore_error: true,
        };
        assert_eq!(cache_to(all).unwrap(), Some(expected));
        let CacheDestination::Registry(found) = given_target("type=registry,ref=r.example/x:1,registry.insecure=true").unwrap().to else {
            panic!()
        };
        assert!(found.insecure);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_suggestion() {
        for (text, said) in [
            ("type=local,dst=d", "did you mean `dest`?"),
            ("type=local", "`dest=` is missing"),
            ("type=registry", "`ref=` is missing"),
            ("type=registry,ref=x,dest=d", "has no key `dest`"),
            ("type=inline,mode=max", "`mode=max` needs"),
            ("type=gha,mode=max", "`gha` is not supported"),
            ("type=s3,bucket=b", "`s3` is not supported"),
            ("type=registy,ref=x", "did you mean `registry`?"),
            ("type=local,dest=d,mode=all", "min or max"),
            ("type=local,dest=d,compression=estargz", "`estargz` is not supported"),
            ("type=local,dest=d,image-manifest=false", "not supported"),
            ("type=local,dest=d,dest=e", "given twice"),
            ("type=registry,ref=UPPER", "no name for a cache"),
            ("type=local,dest=d,compression-level=99", "0 to 12"),
        ] {
            let error = cache_to(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        for text in ["type=inline", "type=local", "type=local,src=/,digest=x", "type=azblob,name=x", "src=d", "type=registry,reference=x"] {
            assert!(cache_from(text).is_err(), "{text}");
        }
    }
}
