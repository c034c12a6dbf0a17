//! Digests and the identifiers made of them (image-spec 1.1, "Descriptors: Digests" and "Image Configuration").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A hash algorithm that the image specification registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, which everything uses.
    #[default]
    Sha256,
    /// `sha512`, which the specification allows.
    Sha512,
}

impl Algorithm {
    /// The algorithm's name in a digest string.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// The hash of some bytes, written `algorithm:hex`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512([u8; 64]),
}

/// Why a string is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between algorithm and hash.
    #[error("digest `{0}` has no algorithm: expected `sha256:` and 64 hexadecimal digits")]
    NoAlgorithm(String),
    /// The algorithm is not one that we know.
    #[error("digest `{digest}` uses the unknown algorithm `{algorithm}`: expected `sha256` or `sha512`")]
    UnknownAlgorithm {
        /// The whole string.
        digest: String,
        /// The part before the colon.
        algorithm: String,
    },
    /// The hash has the wrong length or holds something else than lower-case hexadecimal digits.
    #[error("digest `{digest}` is malformed: expected {expected} lower-case hexadecimal digits after the colon")]
    BadHex {
        /// The whole string.
        digest: String,
        /// How many digits the algorithm calls for.
        expected: usize,
    },
}

impl Digest {
    /// Hashes `bytes` with SHA-256.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Hashes `bytes` with `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm of this digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hash alone, in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        let mut out = String::with_capacity(self.bytes().len() * 2);
        for byte in self.bytes() {
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
        out
    }

    /// The first twelve hexadecimal digits, as `docker images` shows them.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// The raw bytes of the hash.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm(text.to_owned()));
        };
        let bad = |expected| DigestError::BadHex { digest: text.to_owned(), expected };
        match algorithm {
            "sha256" => decode_hex(hex).map(Digest::Sha256).ok_or_else(|| bad(64)),
            "sha512" => decode_hex(hex).map(Digest::Sha512).ok_or_else(|| bad(128)),
            other => Err(DigestError::UnknownAlgorithm { digest: text.to_owned(), algorithm: other.to_owned() }),
        }
    }
}

fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let hex = hex.as_bytes();
    if hex.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    // Without a branch for each digit: lists of many images spend their time here. A digit that is none sets bits that no digit has.
    let mut all = 0;
    for (byte, pair) in out.iter_mut().zip(hex.as_chunks::<2>().0) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all < 16).then_some(out)
}

/// What each character is worth as a hexadecimal digit; 255 where it is none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes that arrive in pieces.
#[derive(Clone)]
pub enum Hasher {
    /// A SHA-256 under way.
    Sha256(sha2::Sha256),
    /// A SHA-512 under way.
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// Starts a hash.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

/// Declares a newtype of [`Digest`] that cannot be mixed up with the others.
macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Declares that `digest` is one of this kind.
            pub fn new(digest: Digest) -> $name {
                $name(digest)
            }

            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }

            /// The algorithm of the digest, which whoever compares it must use.
            pub fn algorithm(&self) -> Algorithm {
                self.0.algorithm()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<$name, DigestError> {
                text.parse().map($name)
            }
        }
    };
}

digest_newtype!(
    /// The digest of a layer's uncompressed tar.
    DiffId
);
digest_newtype!(
    /// The digest that names a stack of layers (image-spec 1.1, "Layer ChainID"); it names a committed chain of snapshots.
    ChainId
);
digest_newtype!(
    /// The digest of an image's config, which is what `docker images` shows as the image's ID.
    ImageId
);

impl ChainId {
    /// The chain ID of the layer `top` above `below`.
    pub fn extend(below: Option<&ChainId>, top: &DiffId) -> ChainId {
        match below {
            None => ChainId(top.0.clone()),
            Some(below) => ChainId(Digest::sha256(format!("{below} {top}").as_bytes())),
        }
    }

    /// The chain ID of each layer of a stack, bottom first.
    pub fn chain(diff_ids: &[DiffId]) -> Vec<ChainId> {
        let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chain.push(ChainId::extend(chain.last(), diff_id));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_survives_text() {
        let digest = Digest::sha256(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in ["", "sha256", "sha256:", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = Digest::sha256(b"").to_string().to_uppercase().replace("SHA256", "sha256");
        assert!(upper.parse::<Digest>().is_err());
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id() {
        let diff = DiffId::new(Digest::sha256(b"layer"));
        assert_eq!(ChainId::chain(std::slice::from_ref(&diff))[0].digest(), diff.digest());
    }

    #[test]
    fn chain_id_of_two_layers_hashes_both_names() {
        let (a, b) = (DiffId::new(Digest::sha256(b"a")), DiffId::new(Digest::sha256(b"b")));
        let chain = ChainId::chain(&[a.clone(), b.clone()]);
        assert_eq!(chain[1].digest(), &Digest::sha256(format!("{a} {b}").as_bytes()));
    }
}
