//! `--detach-keys`: which keys leave a container, or a command in one, without ending it.

/// The keys that a user names, as the bytes that they send: characters and `ctrl-KEY`, with commas between them. Nothing means the usual ones.
pub(super) fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Ok(vec![16, 17]);
    }
    text.split(',').map(key).collect()
}

fn key(name: &str) -> Result<u8, String> {
    let unknown = || format!("`{name}` is not a key: expected a character, or ctrl- with a letter or one of @[\\]^_");
    if let [byte] = name.as_bytes() {
        return Ok(*byte);
    }
    match name.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([byte]) if byte.is_ascii_alphabetic() || b"@[\\]^_".contains(byte) => Ok(byte.to_ascii_uppercase() & 0x1f),
        _ if name == "DEL" => Ok(127),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_characters_and_control_characters() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(detach_keys(""), Ok(vec![16, 17]));
        assert_eq!(detach_keys("ctrl-@,a,ctrl-_,ctrl-X"), Ok(vec![0, b'a', 31, 24]));
        for text in ["ctrl-", "ctrl-pp", "alt-x", "ctrl-1", "a,,b"] {
            assert!(detach_keys(text).is_err(), "{text}");
        }
    }
}
