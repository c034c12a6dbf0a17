//! Which characters names are made of: Unicode letters and decimal digits.
//!
//! The standard library tells alphabetic and numeric characters, which are more: Roman numerals and circled letters are alphabetic, and `²` and `½` numeric.

/// The zeros of all scripts: nine more digits follow each.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090,
    0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0,
    0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950,
    0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Whether the character is a decimal digit.
pub(super) fn is_digit(c: char) -> bool {
    let code = u32::from(c);
    match ZEROS.partition_point(|zero| *zero <= code) {
        0 => false,
        count => code - ZEROS[count - 1] < 10,
    }
}

/// Whether the character is a letter.
pub(super) fn is_letter(c: char) -> bool {
    let circled = matches!(c, '\u{24b6}'..='\u{24e9}' | '\u{1f130}'..='\u{1f189}');
    c.is_alphabetic() && !c.is_numeric() && !circled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zeros_are_in_order() {
        assert!(ZEROS.is_sorted());
    }

    #[test]
    fn digits_are_decimal_digits_of_any_script() {
        for c in ['0', '9', '٣', '９', '𝟗', '𝟘'] {
            assert!(is_digit(c) && !is_letter(c), "{c}");
        }
        for c in ['a', '/', ':', '²', '½', '①', 'Ⅷ', '一'] {
            assert!(!is_digit(c), "{c}");
        }
    }

    #[test]
    fn letters_are_letters_of_any_script() {
        for c in ['a', 'Z', 'é', 'ß', '한', '一', 'Я', 'ª'] {
            assert!(is_letter(c), "{c}");
        }
        for c in ['_', '-', '²', 'Ⅷ', 'Ⓐ', '\u{301}', '€', '😀'] {
            assert!(!is_letter(c), "{c}");
        }
    }
}
