//! Private keys of files: read from OpenSSH's own format (PROTOCOL.key of OpenSSH), PKCS#8, PKCS#1 and SEC1, without passphrase; and signing with them.

use base64::Engine as _;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair};

use super::KeyProblem;
use super::protocol::{put, take};

/// A private key.
#[derive(Debug)]
pub(super) struct PrivateKey {
    /// The public key as the SSH protocol writes it.
    blob: Vec<u8>,
    comment: String,
    secret: SecretKey,
}

#[derive(Debug)]
enum SecretKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

/// A curve of ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    fn name(self) -> &'static str {
        match self {
            Curve::P256 => "nistp256",
            Curve::P384 => "nistp384",
        }
    }

    fn named(name: &[u8]) -> Option<Curve> {
        [Curve::P256, Curve::P384].into_iter().find(|curve| curve.name().as_bytes() == name)
    }

    /// By its object identifier, in DER.
    fn of_oid(oid: &[u8]) -> Option<Curve> {
        match oid {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => Some(Curve::P256),
            [0x2b, 0x81, 0x04, 0x00, 0x22] => Some(Curve::P384),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }

    /// How long a coordinate, and a private key, is.
    fn length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

/// What a client may ask an RSA key for: SHA-256 or SHA-512 instead of SHA-1, which is not done.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

type Parsed<T> = Result<T, KeyProblem>;

impl PrivateKey {
    /// Reads the text of a key file. `comment` is the key's name where the file has none.
    pub(super) fn parse(text: &[u8], comment: &str) -> Parsed<PrivateKey> {
        let text = std::str::from_utf8(text).map_err(|_| KeyProblem::NoKey)?;
        let (label, bytes) = pem(text)?;
        let (secret, own_comment) = match label {
            "OPENSSH PRIVATE KEY" => openssh(&bytes)?,
            "RSA PRIVATE KEY" => (SecretKey::Rsa(rsa::KeyPair::from_der(&bytes).map_err(rejected)?), None),
            "EC PRIVATE KEY" => (sec1(&bytes)?, None),
            "PRIVATE KEY" => (pkcs8(&bytes)?, None),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyProblem::Encrypted),
            label if label.ends_with("PRIVATE KEY") => return Err(KeyProblem::Unsupported),
            _ => return Err(KeyProblem::NoKey),
        };
        Ok(PrivateKey { blob: blob(&secret), comment: own_comment.unwrap_or_else(|| comment.to_owned()), secret })
    }

    /// The public key as the SSH protocol writes it.
    pub(super) fn public_blob(&self) -> &[u8] {
        &self.blob
    }

    /// What people call it.
    pub(super) fn comment(&self) -> &str {
        &self.comment
    }

    /// Signs; gives the algorithm and the signature. `None` where the client asks for an algorithm that this key has not.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<(String, Vec<u8>)> {
        let random = SystemRandom::new();
        match &self.secret {
            SecretKey::Ed25519(key) => Some(("ssh-ed25519".into(), key.sign(data).as_ref().to_vec())),
            SecretKey::Ecdsa(curve, key) => {
                let fixed = key.sign(&random, data).ok()?;
                let (r, s) = fixed.as_ref().split_at_checked(curve.length())?;
                let mut signature = Vec::new();
                put_number(&mut signature, r);
                put_number(&mut signature, s);
                Some((format!("ecdsa-sha2-{}", curve.name()), signature))
            }
            SecretKey::Rsa(key) => {
                let (name, encoding): (_, &dyn signature::RsaEncoding) = if flags & RSA_SHA2_512 != 0 {
                    ("rsa-sha2-512", &signature::RSA_PKCS1_SHA512)
                } else if flags & RSA_SHA2_256 != 0 {
                    ("rsa-sha2-256", &signature::RSA_PKCS1_SHA256)
                } else {
                    return None;
                };
                let mut bytes = vec![0; key.public().modulus_len()];
                key.sign(encoding, &random, data, &mut bytes).ok()?;
                Some((name.into(), bytes))
            }
        }
    }
}

/// What the library says of a key that it does not take: its size, or that its numbers do not fit.
fn rejected(error: ring::error::KeyRejected) -> KeyProblem {
    match error.to_string().as_str() {
        "TooSmall" | "TooLarge" | "WrongAlgorithm" | "VersionNotSupported" => KeyProblem::Unsupported,
        _ => KeyProblem::Damaged,
    }
}

/// The first block of a PEM file: its label and bytes.
fn pem(text: &str) -> Parsed<(&str, Vec<u8>)> {
    let begin = text.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let label = begin.ok_or(KeyProblem::NoKey)?;
    let (_, body) = text.split_once(&format!("-----BEGIN {label}-----")).ok_or(KeyProblem::NoKey)?;
    let (body, _) = body.split_once(&format!("-----END {label}-----")).ok_or(KeyProblem::Damaged)?;
    if body.contains("ENCRYPTED") {
        return Err(KeyProblem::Encrypted);
    }
    let digits: String = body.lines().filter(|line| !line.contains(':')).flat_map(str::split_whitespace).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(digits).map_err(|_| KeyProblem::Damaged)?;
    Ok((label, bytes))
}

/// OpenSSH's format: a header, the public key, and the private one with its comment.
fn openssh(bytes: &[u8]) -> Parsed<(SecretKey, Option<String>)> {
    let damaged = KeyProblem::Damaged;
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0").ok_or(damaged)?;
    let mut next = || take(&mut rest).ok_or(damaged);
    let (cipher, _kdf, _options) = (next()?, next()?, next()?);
    if cipher != b"none" {
        return Err(KeyProblem::Encrypted);
    }
    // One key, of which the public half comes first; then the check numbers, which are about the passphrase.
    rest = rest.strip_prefix(&[0, 0, 0, 1]).ok_or(damaged)?;
    take(&mut rest).ok_or(damaged)?;
    let mut rest = take(&mut rest).and_then(|private| private.get(8..)).ok_or(damaged)?;
    let mut next = || take(&mut rest).ok_or(damaged);
    let secret = match next()? {
        b"ssh-ed25519" => {
            let (public, private) = (next()?, next()?);
            let seed = private.get(..32).ok_or(damaged)?;
            SecretKey::Ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(rejected)?)
        }
        b"ssh-rsa" => {
            let (n, e, d, q_inverse, p, q) = (next()?, next()?, next()?, next()?, next()?, next()?);
            SecretKey::Rsa(rsa_key(RsaNumbers { n, e, d, q_inverse, p, q })?)
        }
        kind if kind.starts_with(b"ecdsa-sha2-") => {
            let curve = Curve::named(next()?).ok_or(KeyProblem::Unsupported)?;
            let (public, private) = (next()?, next()?);
            ecdsa(curve, private, public)?
        }
        _ => return Err(KeyProblem::Unsupported),
    };
    let comment = String::from_utf8_lossy(next()?).into_owned();
    Ok((secret, Some(comment).filter(|comment| !comment.is_empty())))
}

fn ecdsa(curve: Curve, private: &[u8], public: &[u8]) -> Parsed<SecretKey> {
    let private = trimmed(private);
    let mut padded = vec![0; curve.length().checked_sub(private.len()).ok_or(KeyProblem::Damaged)?];
    padded.extend(private);
    let key = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm(), &padded, public, &SystemRandom::new());
    Ok(SecretKey::Ecdsa(curve, key.map_err(rejected)?))
}

/// The numbers of an RSA key as OpenSSH keeps them.
struct RsaNumbers<'a> {
    n: &'a [u8],
    e: &'a [u8],
    d: &'a [u8],
    q_inverse: &'a [u8],
    p: &'a [u8],
    q: &'a [u8],
}

fn rsa_key(numbers: RsaNumbers<'_>) -> Parsed<rsa::KeyPair> {
    let [n, e, d, q_inverse, p, q] = [numbers.n, numbers.e, numbers.d, numbers.q_inverse, numbers.p, numbers.q].map(trimmed);
    // OpenSSH does not keep the two exponents of the Chinese remainder theorem.
    let exponent = |prime: &[u8]| remainder(d, &less_one(prime)).ok_or(KeyProblem::Damaged);
    let (d_p, d_q) = (exponent(p)?, exponent(q)?);
    let components = rsa::KeyPairComponents {
        public_key: rsa::PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: trimmed(&d_p),
        dQ: trimmed(&d_q),
        qInv: q_inverse,
    };
    rsa::KeyPair::from_components(&components).map_err(rejected)
}

/// A number without leading zeros.
fn trimmed(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|byte| *byte != 0).unwrap_or(number.len())..]
}

/// An odd number less one.
fn less_one(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    if let Some(last) = number.last_mut() {
        *last &= 0xfe;
    }
    number
}

/// What is left of `number` divided by `divisor`, both with the highest byte first: long division in binary. `None` for a divisor of 0.
fn remainder(number: &[u8], divisor: &[u8]) -> Option<Vec<u8>> {
    let divisor = trimmed(divisor);
    if divisor.is_empty() {
        return None;
    }
    // One byte more than the divisor, for the bit that is shifted out of it.
    let mut rest = vec![0u8; divisor.len() + 1];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest[0] != 0 || rest[1..] >= *divisor {
            let mut borrow = 0;
            for (index, byte) in rest.iter_mut().enumerate().rev() {
                let taken = i16::from(if index == 0 { 0 } else { divisor[index - 1] }) + borrow;
                let difference = i16::from(*byte) - taken;
                borrow = i16::from(difference < 0);
                *byte = difference.rem_euclid(256) as u8;
            }
        }
    }
    Some(rest)
}

/// PKCS#8, of any of the algorithms.
fn pkcs8(bytes: &[u8]) -> Parsed<SecretKey> {
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(SecretKey::Ed25519(key));
    }
    for curve in [Curve::P256, Curve::P384] {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &SystemRandom::new()) {
            return Ok(SecretKey::Ecdsa(curve, key));
        }
    }
    rsa::KeyPair::from_pkcs8(bytes).map(SecretKey::Rsa).map_err(rejected)
}

/// SEC1, section C.4: version, private key, curve, public key.
fn sec1(bytes: &[u8]) -> Parsed<SecretKey> {
    let damaged = KeyProblem::Damaged;
    let mut outer = bytes;
    let mut rest = element(&mut outer, 0x30).ok_or(damaged)?;
    element(&mut rest, 0x02).ok_or(damaged)?;
    let private = element(&mut rest, 0x04).ok_or(damaged)?;
    let mut curve = element(&mut rest, 0xa0).ok_or(damaged)?;
    let oid = element(&mut curve, 0x06).ok_or(damaged)?;
    let curve = Curve::of_oid(oid).ok_or(KeyProblem::Unsupported)?;
    let mut public = element(&mut rest, 0xa1).ok_or(damaged)?;
    // The first byte of a string of bits says how many bits of the last are not used.
    let public = element(&mut public, 0x03).and_then(|bits| bits.get(1..)).ok_or(damaged)?;
    ecdsa(curve, private, public)
}

/// The content of the next element of DER, which has this tag.
fn element<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let rest = from.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), &rest[2..]),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(content)
}

fn blob(secret: &SecretKey) -> Vec<u8> {
    let mut blob = Vec::new();
    match secret {
        SecretKey::Ed25519(key) => {
            put(&mut blob, b"ssh-ed25519");
            put(&mut blob, key.public_key().as_ref());
        }
        SecretKey::Ecdsa(curve, key) => {
            put(&mut blob, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
            put(&mut blob, curve.name().as_bytes());
            put(&mut blob, key.public_key().as_ref());
        }
        SecretKey::Rsa(key) => {
            let public: rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
            put(&mut blob, b"ssh-rsa");
            put_number(&mut blob, &public.e);
            put_number(&mut blob, &public.n);
        }
    }
    blob
}

/// Writes a positive number of the SSH protocol: without leading zeros, but with one where the first bit would be taken for a sign.
fn put_number(to: &mut Vec<u8>, number: &[u8]) {
    let number = trimmed(number);
    let mut signed = Vec::with_capacity(number.len() + 1);
    if number.first().is_some_and(|byte| byte & 0x80 != 0) {
        signed.push(0);
    }
    signed.extend(number);
    put(to, &signed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_long_division() {
        for (number, divisor) in
            [(0u64, 7u64), (6, 7), (7, 7), (1_000_003, 255), (u64::MAX, 65_537), (u64::MAX - 1, u64::MAX), (12_345_678_901_234, 257)]
        {
            let rest = remainder(&number.to_be_bytes(), &divisor.to_be_bytes()).unwrap();
            let value = rest.iter().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
            assert_eq!(value, u128::from(number % divisor), "{number} % {divisor}");
        }
        assert_eq!(remainder(&[1], &[0, 0]), None);
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        let problem = |text: &str| PrivateKey::parse(text.as_bytes(), "k").map(drop).unwrap_err();
        assert_eq!(problem("hello"), KeyProblem::NoKey);
        assert_eq!(problem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), KeyProblem::NoKey);
        assert_eq!(problem("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), KeyProblem::Encrypted);
        assert_eq!(problem("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n"), KeyProblem::Unsupported);
        for label in ["OPENSSH", "RSA", "EC"] {
            let text = format!("-----BEGIN {label} PRIVATE KEY-----\nMAMCAQA=\n-----END {label} PRIVATE KEY-----\n");
            assert_eq!(problem(&text), KeyProblem::Damaged, "{label}");
        }
        assert_eq!(
            problem("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
            KeyProblem::Encrypted
        );
    }
}
