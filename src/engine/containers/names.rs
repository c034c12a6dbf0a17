//! Names for containers that were given none.

use super::super::Error;

const FIRST: [&str; 40] = [
    "amber", "ample", "bold", "brisk", "calm", "civil", "clear", "crisp", "deft", "eager", "early", "even", "fair", "fleet", "fond",
    "frank", "glad", "grand", "hardy", "hearty", "keen", "kind", "light", "lively", "lucid", "mellow", "merry", "mild", "neat", "nimble",
    "plain", "proud", "quick", "quiet", "ready", "steady", "sunny", "tidy", "warm", "witty",
];

const SECOND: [&str; 40] = [
    "alder", "anchor", "aspen", "badger", "beacon", "birch", "bittern", "brook", "cedar", "cliff", "comet", "crane", "delta", "dune",
    "falcon", "fern", "fjord", "gannet", "harbor", "hazel", "heron", "island", "juniper", "keel", "lagoon", "larch", "linden", "lynx",
    "marten", "meadow", "osprey", "otter", "plover", "quarry", "ridge", "rowan", "sable", "tern", "willow", "wren",
];

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let failed = |error: getrandom::Error| Error::Io {
        action: "read",
        path: "the random source".into(),
        source: std::io::Error::other(error.to_string()),
    };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A name that another container may have; later attempts have a number, and so more choice.
pub(super) fn random_name(attempt: u32) -> Result<String, Error> {
    let bytes = random::<4>()?;
    let (first, second) = (FIRST[usize::from(bytes[0]) % FIRST.len()], SECOND[usize::from(bytes[1]) % SECOND.len()]);
    if attempt < 2 {
        return Ok(format!("{first}_{second}"));
    }
    Ok(format!("{first}_{second}{}", u16::from_le_bytes([bytes[2], bytes[3]])))
}

/// 64 hexadecimal digits, as anonymous volumes are called and networks are known by.
pub(in crate::engine) fn random_hex() -> Result<String, Error> {
    Ok(random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
