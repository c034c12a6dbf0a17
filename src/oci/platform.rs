//! Platforms: operating system and processor of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The platform that an image runs on, normalised as containerd does (`x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, in Go's words: `amd64`, `arm64`, `arm`, `riscv64`, …
    pub architecture: String,
    /// The operating system, in Go's words: `linux`.
    pub os: String,
    /// The version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that are needed (Windows).
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the processor: `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a string is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`, such as `linux/arm64`")]
pub struct PlatformError(pub String);

impl Platform {
    /// A normalised platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normalise(&architecture.to_lowercase(), variant.unwrap_or("").to_lowercase().as_str());
        Platform { architecture, os: os.to_lowercase(), os_version: None, os_features: Vec::new(), variant }
    }

    /// The platform that this program runs on.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// Whether an image for `self` can be taken where `wanted` is asked for: same system, processor and variant.
    pub fn matches(&self, wanted: &Platform) -> bool {
        let (a, b) = (self.normalised(), wanted.normalised());
        a.os == b.os && a.architecture == b.architecture && a.variant == b.variant && a.has_version_of(&b)
    }

    /// Whether the versions of the system are the same up to the build (`10.0.20348` of `10.0.20348.2402`), as containerd compares those of Windows; what does not say its
    /// version is taken for any.
    pub(super) fn has_version_of(&self, wanted: &Platform) -> bool {
        match (&self.os_version, &wanted.os_version) {
            (Some(own), Some(wanted)) => own.split('.').take(3).eq(wanted.split('.').take(3)),
            _ => true,
        }
    }

    /// This platform in its normal form (what was read from JSON may not be in it).
    pub fn normalised(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }
}

fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i686" | "x86", _) => ("386", ""),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64le" | "powerpc64", variant) => ("ppc64le", variant),
        ("loongarch64", variant) => ("loong64", variant),
        other => other,
    };
    (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let bad = || PlatformError(text.to_owned());
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        // `windows(10.0.20348)/amd64`: the version of the system that it needs.
        let mut parts: Vec<&str> = text.split('/').collect();
        let mut version = None;
        if let Some((os, of_os)) = parts[0].strip_suffix(')').and_then(|first| first.split_once('(')) {
            (parts[0], version) = (os, Some(of_os));
        }
        if !parts.iter().copied().chain(version).all(word) {
            return Err(bad());
        }
        let platform = match parts[..] {
            // One word names either an operating system or a processor, as in BuildKit.
            ["linux"] => Ok(Platform::host()),
            ["local"] => Ok(Platform::host()),
            [os @ ("windows" | "darwin" | "freebsd")] => Ok(Platform::new(os, std::env::consts::ARCH, None)),
            [architecture] => {
                let platform = Platform::new("linux", architecture, None);
                KNOWN_ARCHITECTURES.contains(&platform.architecture.as_str()).then_some(platform).ok_or_else(bad)
            }
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(bad()),
        }?;
        Ok(Platform { os_version: version.map(str::to_owned), ..platform })
    }
}

const KNOWN_ARCHITECTURES: &[&str] = &["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/AArch64", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("Windows(10.0.20348.1006)/x86_64", "windows(10.0.20348.1006)/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "linux/", "a/b/c/d", "vax", "linux/ amd64", "windows()/amd64", "windows(1)2/amd64", "windows/amd64(1)"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
