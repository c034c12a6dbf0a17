//! `--output`, `--push`, `--load` and `--annotation` of `strake build`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use crate::engine::{
    Annotation, AnnotationPlace, Compression, CompressionSpec, Destination, DigestNames, Error, FileLayout, Output, OutputTimes, Packing,
    Push,
};
use crate::oci::{Platform, Reference};

/// The keys of every output that is an image.
const IMAGE_KEYS: &str =
    "name, compression, compression-level, force-compression, oci-mediatypes, source-date-epoch, rewrite-timestamp, annotation.KEY";

/// The keys of images in the store and at registries only.
const NAMED_KEYS: &str = "push, push-by-digest, registry.insecure, store, unpack, name-canonical, dangling-name-prefix";

/// What a field of an output says, before it is known what kind of output it is.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    dest: Option<PathBuf>,
    names: Vec<Reference>,
    switches: BTreeMap<&'static str, bool>,
    compression: Option<Compression>,
    level: Option<u32>,
    packing: Packing,
    annotations: Vec<Annotation>,
    times: OutputTimes,
    rewrite: Option<bool>,
    prefix: Option<Reference>,
    delete: bool,
    /// A key that only directories and archives of files have.
    file_key: Option<String>,
    /// A key that only images have.
    image_key: Option<String>,
}

/// Reads `--output`, for clap; what a script leaves empty is none.
pub(super) fn output_if_set(text: &str) -> Result<Option<Output>, String> {
    if text.is_empty() { Ok(None) } else { output(text).map(Some) }
}

/// Reads what `--output` says.
fn output(text: &str) -> Result<Output, String> {
    if text.is_empty() {
        return Err("an output is a directory, `-`, or `type=…`".into());
    }
    if text == "-" {
        return to_stdout(Destination::Tar("-".into()).into());
    }
    if !text.contains('=') {
        return Ok(Destination::Local(text.into()).into());
    }
    let mut fields = Fields::default();
    for field in split(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
        fields.read(key.trim(), value)?;
    }
    to_stdout(fields.output()?)
}

/// Archives are not for terminals.
fn to_stdout(output: Output) -> Result<Output, String> {
    match &output.to {
        Destination::Tar(file) | Destination::Oci(file) | Destination::Docker(file)
            if file == Path::new("-") && std::io::stdout().is_terminal() =>
        {
            Err("an archive is not written to a terminal: give `dest=FILE`, or redirect standard output".into())
        }
        _ => Ok(output),
    }
}

impl Fields {
    fn read(&mut self, key: &str, value: &str) -> Result<(), String> {
        const SWITCHES: [&str; 9] = [
            "push",
            "push-by-digest",
            "registry.insecure",
            "name-canonical",
            "store",
            "unpack",
            "tar",
            "force-compression",
            "oci-mediatypes",
        ];
        if let Some(switch) = SWITCHES.into_iter().find(|switch| *switch == key) {
            // Without a value they are on, as with BuildKit.
            self.switches.insert(switch, value.is_empty() || boolean(key, value)?);
            if !matches!(switch, "tar") {
                self.image_key = Some(key.to_owned());
            }
            return Ok(());
        }
        match key {
            "type" => self.kind = Some(value.to_owned()),
            "dest" if value.is_empty() => return Err("`dest` has no value".into()),
            "dest" => self.dest = Some(value.into()),
            "source-date-epoch" => self.times.epoch = Some(seconds(key, value)?),
            "platform-split" => {
                self.switches.insert("platform-split", boolean(key, value)?);
                self.file_key = Some(key.to_owned());
            }
            "mode" => {
                self.delete = match value {
                    "copy" => false,
                    "delete" => true,
                    _ => return Err(format!("`mode` is copy or delete, not `{value}`")),
                };
                self.file_key = Some(key.to_owned());
            }
            "rewrite-timestamp" => self.rewrite = Some(boolean(key, value)?),
            _ => {
                self.read_image_key(key, value)?;
                self.image_key = Some(key.to_owned());
            }
        }
        Ok(())
    }

    fn read_image_key(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "name" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    self.names.push(super::tag_name(name).map_err(|reason| format!("`{name}` is no name for an image: {reason}"))?);
                }
            }
            "compression" => {
                self.compression = Some(compression(value)?);
            }
            "compression-level" => {
                self.level = Some(value.parse().map_err(|_| format!("`compression-level` is a number, not `{value}`"))?);
            }
            "dangling-name-prefix" => {
                let named = format!("{value}:latest").parse();
                self.prefix = Some(named.map_err(|_| format!("`dangling-name-prefix` is the name of a repository, not `{value}`"))?);
            }
            _ if settle(key, value)? => {}
            _ => match key.split_once('.').filter(|(kind, _)| kind.starts_with("annotation")) {
                Some((kind, name)) => {
                    self.annotations.push(annotation(kind.strip_prefix("annotation").unwrap_or_default(), name, value)?);
                }
                None => {
                    return Err(format!(
                        "the key `{key}` is not supported: expected type, dest, tar, mode, platform-split, {NAMED_KEYS}, {IMAGE_KEYS}"
                    ));
                }
            },
        }
        Ok(())
    }

    fn output(mut self) -> Result<Output, String> {
        let kind = self.kind.take().ok_or("`type=` is missing")?;
        let is_image = !matches!(kind.as_str(), "local" | "tar" | "cacheonly");
        if let (false, Some(key)) = (is_image, &self.image_key) {
            return Err(format!("`{key}` is for images, not for `type={kind}`"));
        }
        if let (false, Some(key)) = (matches!(kind.as_str(), "local" | "tar"), &self.file_key) {
            return Err(format!("`{key}` is for files, not for `type={kind}`"));
        }
        if kind == "tar" && self.file_key.as_deref() == Some("mode") {
            return Err("`mode` is for `type=local`, not for `type=tar`".into());
        }
        self.check_times(&kind)?;
        let to = self.destination(&kind)?;
        self.pack()?;
        let by_digest = DigestNames { canonical: self.switch("name-canonical", false), prefix: self.prefix.take() };
        let insecure = self.switch("registry.insecure", false);
        if !matches!(to, Destination::Image { .. }) && (insecure || by_digest != DigestNames::default()) {
            let key = match (&by_digest.prefix, by_digest.canonical) {
                (Some(_), _) => "dangling-name-prefix",
                (None, true) => "name-canonical",
                (None, false) => "registry.insecure",
            };
            return Err(format!("`{key}` is for images in the store and at registries, not for `type={kind}`"));
        }
        let files = FileLayout { split: self.switches.get("platform-split").copied(), delete: self.delete };
        let Fields { names, packing, annotations, times, .. } = self;
        Ok(Output { to, names, packing, annotations, times, by_digest, insecure, files })
    }

    fn check_times(&mut self, kind: &str) -> Result<(), String> {
        self.times.rewrite = self.rewrite.unwrap_or(false);
        match (kind, self.rewrite, self.times.epoch) {
            ("cacheonly", None, Some(_)) => Err("`source-date-epoch` is for results, not for `type=cacheonly`".into()),
            ("cacheonly", Some(_), _) => Err("`rewrite-timestamp` is for results, not for `type=cacheonly`".into()),
            // Their files have that time whenever there is one.
            ("local" | "tar", Some(false), _) => {
                Err(format!("files of `type={kind}` have the time of SOURCE_DATE_EPOCH always: give `source-date-epoch=` against it"))
            }
            _ => Ok(()),
        }
    }

    fn destination(&mut self, kind: &str) -> Result<Destination, String> {
        let registry = kind == "registry";
        let push = match (self.switch("push", registry), self.switch("push-by-digest", false)) {
            (true, true) => Push::Digest,
            (true, false) => Push::Tags,
            (false, true) => return Err("`push-by-digest` is for images that are pushed: add `push=true`".into()),
            (false, false) => Push::No,
        };
        let keep = self.switch("store", true);
        let as_directory = !self.switch("tar", true);
        let dest = self.dest.take();
        if push != Push::No && !matches!(kind, "image" | "registry") {
            return Err(format!("`push` is for `type=image`, not for `type={kind}`"));
        }
        if as_directory && kind != "oci" {
            return Err("`tar=false` is for `type=oci`".into());
        }
        match (kind, dest) {
            ("local", Some(dir)) => Ok(Destination::Local(dir)),
            ("oci", Some(dir)) if as_directory => Ok(Destination::OciLayout(dir)),
            ("local" | "oci", None) if as_directory || kind == "local" => Err("`dest=` is missing".into()),
            ("tar", dest) => Ok(Destination::Tar(dest.unwrap_or_else(|| "-".into()))),
            ("oci", dest) => Ok(Destination::Oci(dest.unwrap_or_else(|| "-".into()))),
            ("docker", Some(dest)) => Ok(Destination::Docker(dest)),
            // What other builders load into Docker is here already.
            ("docker" | "image" | "registry", None) => Ok(Destination::Image { keep, push }),
            ("cacheonly", None) => Ok(Destination::Nothing),
            ("image" | "registry" | "cacheonly", Some(_)) => Err(format!("`type={kind}` has no `dest`")),
            _ => Err(format!("the type `{kind}` is not supported: expected local, tar, oci, docker, image, registry or cacheonly")),
        }
    }

    fn pack(&mut self) -> Result<(), String> {
        if let Some(kind) = self.compression {
            self.packing.compression = Some(at_level(kind, self.level)?);
        } else if self.level.is_some() {
            self.packing.compression = Some(at_level(Compression::Gzip, self.level)?);
        }
        self.packing.force = self.switch("force-compression", false);
        if self.packing.force && self.packing.compression.is_none() {
            self.packing.compression = Some(CompressionSpec { kind: Compression::Gzip, level: None });
        }
        self.packing.docker_types = !self.switch("oci-mediatypes", true);
        Ok(())
    }

    fn switch(&self, name: &str, default: bool) -> bool {
        self.switches.get(name).copied().unwrap_or(default)
    }
}

/// Keys of BuildKit one of whose values asks for what happens here anyway, and the others for what does not exist: says whether `key` is one.
fn settle(key: &str, value: &str) -> Result<bool, String> {
    let only = |wanted: bool, why: &str| match boolean(key, value)? == wanted {
        true => Ok(true),
        false => Err(format!("`{key}={value}` is not supported: {why}")),
    };
    match key {
        "prefer-nondist-layers" => only(false, "all layers are for distribution"),
        "attestation-inline" => only(false, "no attestations are made"),
        // The form of attestations, of which there are none in either.
        "oci-artifact" => boolean(key, value).map(|_| true),
        // So BuildKit spells it.
        "danging-name-empty-only" => only(true, "`dangling-name-prefix` is for images without a name"),
        "compatibility-version" => match value {
            "30" => Ok(true),
            "10" | "20" => Err(format!("`{key}={value}` is not supported: images have the form of 30")),
            _ => Err(format!("`{key}` is 30, not `{value}`")),
        },
        _ => Ok(false),
    }
}

/// What layers are compressed with.
pub(super) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "uncompressed" => Ok(Compression::Uncompressed),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        other => Err(format!("the compression `{other}` is not supported: expected uncompressed, gzip or zstd")),
    }
}

/// A compression and its level, which must be one that it has.
pub(super) fn at_level(kind: Compression, level: Option<u32>) -> Result<CompressionSpec, String> {
    let highest = match kind {
        Compression::Gzip => Some(12),
        Compression::Zstd => Some(22),
        _ => None,
    };
    match (level, highest) {
        (Some(level), Some(highest)) if level > highest => Err(format!("`compression-level` is 0 to {highest}, not {level}")),
        _ => Ok(CompressionSpec { kind, level }),
    }
}

/// The fields of a comma-separated list (RFC 4180): a field in double quotes may hold commas, and two quotes for one.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        let last = fields.last_mut().ok_or("no field")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push('"');
            }
            '"' if quoted || last.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => last.push(c),
        }
    }
    if quoted { Err(format!("a quote is never closed in `{text}`")) } else { Ok(fields) }
}

/// Seconds since the epoch; empty is none, as with BuildKit.
fn seconds(key: &str, value: &str) -> Result<Option<i64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| format!("`{key}` is a number of seconds since 1970, not `{value}`"))
}

pub(super) fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "True" | "TRUE" | "1" | "t" | "T" => Ok(true),
        "false" | "False" | "FALSE" | "0" | "f" | "F" => Ok(false),
        _ => Err(format!("`{key}` is true or false, not `{value}`")),
    }
}

/// An annotation; `place` is what follows the word `annotation`: nothing or `-manifest`, `-manifest-descriptor`, `-index`, `-index-descriptor`, and perhaps
/// `[PLATFORM]`.
fn annotation(place: &str, key: &str, value: &str) -> Result<Annotation, String> {
    let (kind, platform) = match place.split_once('[') {
        None => (place, None),
        Some((kind, rest)) => {
            let platform = rest.strip_suffix(']').ok_or_else(|| format!("`annotation{place}` has no `]`"))?;
            (kind, Some(platform.parse::<Platform>().map_err(|error| error.to_string())?))
        }
    };
    if key.is_empty() {
        return Err("an annotation has no key".into());
    }
    let place = match kind {
        "" | "-manifest" => AnnotationPlace::Manifest,
        "-manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
        "-index" => AnnotationPlace::Index,
        "-index-descriptor" => AnnotationPlace::IndexDescriptor,
        _ => {
            return Err(format!(
                "`annotation{place}` is not known: expected annotation, and then nothing, -manifest, -manifest-descriptor, -index or -index-descriptor"
            ));
        }
    };
    Ok(Annotation { place, platform, key: key.to_owned(), value: value.to_owned() })
}

/// The place before the colon of `--annotation PLACE:KEY=VALUE`, as [`annotation`] takes it.
fn place(text: &str) -> Result<String, String> {
    match text.split('[').next() {
        Some("manifest" | "manifest-descriptor" | "index" | "index-descriptor") => Ok(format!("-{text}")),
        _ => Err(format!("an annotation has no place `{text}`: it is manifest, manifest-descriptor, index or index-descriptor")),
    }
}

/// The outputs of a build: those that were named, with what `--push`, `--load` and `--annotation` say.
pub(super) fn outputs(mut outputs: Vec<Output>, push: bool, load: bool, annotations: &[String]) -> Result<Vec<Output>, Error> {
    // Also where there is no image for them: a mistake is one whatever is made.
    let mut annotated = Vec::new();
    for given in annotations.iter().filter(|given| !given.is_empty()) {
        annotated.extend(annotations_of(given).map_err(|message| Error::Usage {
            message,
            hint: Some("write `--annotation [PLACE:]KEY=VALUE`, such as `manifest[linux/arm64]:KEY=VALUE`".into()),
        })?);
    }
    let images = |outputs: &[Output]| outputs.iter().any(|output| matches!(output.to, Destination::Image { .. }));
    if (push || load) && !images(&outputs) || outputs.is_empty() {
        outputs.push(Output::store());
    }
    for output in &mut outputs {
        if let (true, Destination::Image { push, .. }) = (push, &mut output.to)
            && *push == Push::No
        {
            *push = Push::Tags;
        }
        if !matches!(output.to, Destination::Local(_) | Destination::Tar(_) | Destination::Nothing) {
            output.annotations.extend(annotated.iter().cloned());
        }
    }
    Ok(outputs)
}

/// What one `--annotation` gives: an annotation for each place that it names.
fn annotations_of(given: &str) -> Result<Vec<Annotation>, String> {
    let (key, value) = given.split_once('=').ok_or_else(|| format!("the annotation `{given}` has no value"))?;
    let (places, key) = match key.split_once(':') {
        Some((places, key)) => (places.split(',').map(place).collect::<Result<_, _>>()?, key),
        None => (vec![String::new()], key),
    };
    places.iter().map(|place| annotation(place, key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_output_is_read() {
        for (text, to) in [
            ("dir", Destination::Local("dir".into())),
            ("type=local,dest=d", Destination::Local("d".into())),
            ("type=tar,dest=f", Destination::Tar("f".into())),
            ("type=oci,dest=f", Destination::Oci("f".into())),
            ("type=oci,tar=false,dest=d", Destination::OciLayout("d".into())),
            ("type=docker,dest=f", Destination::Docker("f".into())),
            ("type=docker", Destination::Image { keep: true, push: Push::No }),
            ("type=image", Destination::Image { keep: true, push: Push::No }),
            ("type=image,push=true,store=false", Destination::Image { keep: false, push: Push::Tags }),
            ("type=registry", Destination::Image { keep: true, push: Push::Tags }),
            ("type=image,push=true,push-by-digest=1", Destination::Image { keep: true, push: Push::Digest }),
            ("type=cacheonly", Destination::Nothing),
        ] {
            assert_eq!(output(text).unwrap().to, to, "{text}");
        }
    }

    #[test]
    fn a_quoted_field_holds_commas() {
        let names = output(r#"type=image,"name=a.b/c:1,a.b/d:2""#).unwrap().names;
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.b/c:1", "a.b/d:2"]);
        assert_eq!(split(r#"a,"b ""c"", d",e"#).unwrap(), ["a", r#"b "c", d"#, "e"]);
        assert!(split(r#"a,"b"#).is_err());
    }

    #[test]
    fn packing_follows_from_the_keys() {
        let packing = |text: &str| output(text).unwrap().packing;
        let zstd = packing("type=image,compression=zstd,compression-level=19,force-compression=true,annotation.a.b=c");
        assert_eq!(zstd.compression, Some(CompressionSpec { kind: Compression::Zstd, level: Some(19) }));
        assert!(zstd.force && !zstd.docker_types);
        let annotations = |text: &str| output(text).unwrap().annotations;
        let own = |place, platform: Option<&str>| Annotation {
            place,
            platform: platform.map(|text| text.parse().unwrap()),
            key: "k".into(),
            value: "v".into(),
        };
        assert_eq!(annotations("type=image,annotation.k=v"), [own(AnnotationPlace::Manifest, None)]);
        assert!(packing("type=image,oci-mediatypes=false").docker_types);
        let described = annotations("type=oci,dest=x,annotation-manifest-descriptor[linux/amd64].k=v,annotation[arm64].k=v");
        assert_eq!(
            described,
            [own(AnnotationPlace::ManifestDescriptor, Some("linux/amd64")), own(AnnotationPlace::Manifest, Some("linux/arm64"))]
        );
        let index = annotations("type=image,annotation-index.k=v,annotation-index-descriptor.k=v");
        assert_eq!(index, [own(AnnotationPlace::Index, None), own(AnnotationPlace::IndexDescriptor, None)]);
    }

    #[test]
    fn times_follow_from_the_keys_and_an_empty_one_is_none() {
        let times = |text: &str| output(text).unwrap().times;
        assert_eq!(times("type=image"), OutputTimes::default());
        assert_eq!(times("type=image,rewrite-timestamp=true"), OutputTimes { epoch: None, rewrite: true });
        assert_eq!(times("type=oci,dest=f,source-date-epoch=-5"), OutputTimes { epoch: Some(Some(-5)), rewrite: false });
        assert_eq!(times("type=tar,source-date-epoch="), OutputTimes { epoch: Some(None), rewrite: false });
        assert!(output("type=local,dest=d,rewrite-timestamp=true").is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "type=local",
            "type=nonsense",
            "type=local,dest=d,push=true",
            "type=tar,dest=f,compression=zstd",
            "type=image,dest=f",
            "type=image,compression=lz4",
            "type=image,compression-level=x",
            "type=image,compression-level=13",
            "type=image,compression=zstd,compression-level=23",
            "type=image,push=maybe",
            "type=image,push-by-digest=true",
            "type=image,annotation-nowhere.k=v",
            "type=image,annotation[linux/amd64.k=v",
            "type=image,annotation[vax].k=v",
            "type=image,unknown=1",
            "type=oci,tar=false",
            "type=docker,tar=false,dest=x",
            "dest=x",
            "",
            "type=local,dest=",
            "type=oci,dest=",
            "type=image,source-date-epoch=x",
            "type=image,rewrite-timestamp=x",
            "type=cacheonly,source-date-epoch=1",
            "type=cacheonly,rewrite-timestamp=true",
            "type=local,dest=d,rewrite-timestamp=false",
        ] {
            assert!(output(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_buildkit_are_read_or_refused_by_what_they_ask_for() {
        let by_digest = |text: &str| output(text).unwrap().by_digest;
        assert_eq!(by_digest("type=image,name-canonical=,push=true,name=a"), DigestNames { canonical: true, prefix: None });
        assert_eq!(by_digest("type=image,dangling-name-prefix=r:5000/x").prefix.unwrap().name(), "r:5000/x");
        assert!(output("type=registry,name=a,registry.insecure=T").unwrap().insecure);
        assert_eq!(output("type=local,dest=d,mode=delete,platform-split=1").unwrap().files, FileLayout { split: Some(true), delete: true });
        for text in [
            "type=image,compatibility-version=30,prefer-nondist-layers=0,attestation-inline=false,oci-artifact=true",
            "type=oci,dest=f,name-canonical=false,registry.insecure=false,oci-artifact=false",
            "type=image,dangling-name-prefix=x,danging-name-empty-only=true",
            "type=tar,platform-split=false",
            "type=local,dest=d,mode=copy",
        ] {
            assert!(output(text).is_ok(), "{text}");
        }
        for text in [
            "type=image,compatibility-version=20",
            "type=image,compatibility-version=31",
            "type=image,prefer-nondist-layers=true",
            "type=image,attestation-inline=1",
            "type=image,danging-name-empty-only=false",
            "type=image,name-canonical=yes",
            "type=image,name-canonical=tRUE",
            "type=image,dangling-name-prefix=a:1",
            "type=image,dangling-name-prefix=",
            "type=image,platform-split=true",
            "type=image,mode=copy",
            "type=cacheonly,mode=copy",
            "type=oci,dest=f,name-canonical=true",
            "type=oci,dest=f,dangling-name-prefix=x",
            "type=local,dest=d,registry.insecure=false",
            "type=local,dest=d,mode=move",
            "type=local,dest=d,platform-split=",
            "type=tar,mode=copy",
        ] {
            assert!(output(text).is_err(), "{text}");
        }
    }

    #[test]
    fn push_and_load_go_with_other_outputs() {
        let stored = Destination::Image { keep: true, push: Push::No };
        let pushed = Destination::Image { keep: true, push: Push::Tags };
        let to = |given: &[&str], push, load| -> Vec<Destination> {
            let given = given.iter().map(|text| output(text).unwrap()).collect();
            outputs(given, push, load, &[]).unwrap().into_iter().map(|output| output.to).collect()
        };
        assert_eq!(to(&[], false, false), std::slice::from_ref(&stored));
        assert_eq!(to(&[], true, false), std::slice::from_ref(&pushed));
        assert_eq!(to(&["type=image"], true, true), std::slice::from_ref(&pushed));
        assert_eq!(to(&["d"], false, false), [Destination::Local("d".into())]);
        assert_eq!(to(&["d"], true, false), [Destination::Local("d".into()), pushed]);
        assert_eq!(to(&["d"], false, true), [Destination::Local("d".into()), stored]);
    }

    #[test]
    fn annotations_have_places() {
        let all =
            outputs(vec![output("type=image").unwrap()], false, false, &["manifest:a=1".into(), "b=c:2".into(), String::new()]).unwrap();
        let shown = |output: &Output| -> Vec<(AnnotationPlace, String, String, String)> {
            let platform = |annotation: &Annotation| annotation.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            output.annotations.iter().map(|a| (a.place, platform(a), a.key.clone(), a.value.clone())).collect()
        };
        let of = |place, platform: &str, key: &str, value: &str| (place, platform.to_owned(), key.to_owned(), value.to_owned());
        let (manifest, index) = (AnnotationPlace::Manifest, AnnotationPlace::Index);
        assert_eq!(shown(&all[0]), [of(manifest, "", "a", "1"), of(manifest, "", "b", "c:2")]);
        let several = outputs(vec![], false, false, &["index,manifest[linux/arm64]:a=1".into()]).unwrap();
        assert_eq!(shown(&several[0]), [of(index, "", "a", "1"), of(manifest, "linux/arm64", "a", "1")]);
        for bad in ["a", "manifets:a=1", "manifest,b:a=1", ":a=1"] {
            for to in ["type=image", "type=cacheonly"] {
                assert!(outputs(vec![output(to).unwrap()], false, false, &[bad.into()]).is_err(), "{bad} {to}");
            }
        }
    }
}
