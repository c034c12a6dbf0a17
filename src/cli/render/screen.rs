//! Text for a terminal: what a step writes, without whatever could move the cursor, cut to columns.

use console::measure_text_width;

/// How many columns lie between two tab stops.
const TAB: usize = 8;

/// What a terminal would show of one line, as text alone: without escape sequences and control characters, with tabs as blanks, and with what was written
/// over after a carriage return or backspace gone.
pub(in crate::cli) fn clean(text: &str) -> String {
    // What was written after the last carriage return covers the rest, unless nothing came.
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        match character {
            '\x1b' => skip_escape(&mut chars),
            '\u{9b}' => skip_until(&mut chars, |c| ('\x40'..='\x7e').contains(&c)),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut chars),
            '\x08' => drop(out.pop()),
            '\t' => out.extend(std::iter::repeat_n(' ', TAB - measure_text_width(&out) % TAB)),
            // Marks that turn the direction of writing around would also turn what stands after the line's end.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ if character.is_control() => {}
            _ => out.push(character),
        }
    }
    out
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips what follows an ESC.
fn skip_escape(chars: &mut Rest<'_>) {
    match chars.next() {
        Some('[') => skip_until(chars, |c| ('\x40'..='\x7e').contains(&c)),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(chars),
        // Such as the choice of a character set: one more.
        Some('\x20'..='\x2f') => skip_until(chars, |c| ('\x30'..='\x7e').contains(&c)),
        _ => {}
    }
}

fn skip_until(chars: &mut Rest<'_>, ends: impl Fn(char) -> bool) {
    for character in chars.by_ref() {
        if ends(character) {
            return;
        }
    }
}

/// Skips a string that BEL or ST ends.
fn skip_string(chars: &mut Rest<'_>) {
    while let Some(character) = chars.next() {
        if character == '\x07' || character == '\u{9c}' || (character == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
            return;
        }
    }
}

/// Clean text of so many columns at most.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if measure_text_width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut width = 0;
    for character in text.chars() {
        let mut buffer = [0; 4];
        let wide = measure_text_width(character.encode_utf8(&mut buffer));
        if width + wide + 1 > columns {
            break;
        }
        width += wide;
        out.push(character);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// `left`, and `right` at the end of the line.
pub(super) fn spread(left: &str, right: &str, columns: usize) -> String {
    let taken = measure_text_width(right) + 1;
    if columns <= taken + 4 {
        return fit(left, columns);
    }
    let left = fit(left, columns - taken);
    let gap = columns - measure_text_width(&left) - measure_text_width(right);
    format!("{left}{}{right}", " ".repeat(gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_is_left() {
        for (text, shown) in [
            ("plain", "plain"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b[10;10Hhome", "home"),
            ("\x1b]0;a title\x07text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\u{9b}31mred\u{9b}m", "red"),
            ("\x1bP1;2q pixels \x1b\\after", "after"),
            ("\x1b(Bascii\x1b7\x1b8", "ascii"),
            ("10%\r50%\r100%", "100%"),
            ("100%\r\n", "100%"),
            ("ab\x08c", "ac"),
            ("a\tb", "a       b"),
            ("a\x07\x00\x0b\x7fb", "ab"),
            ("\u{202e}right to left", "right to left"),
            ("cut \x1b[3", "cut "),
            ("cut \x1b", "cut "),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }

    #[test]
    fn lines_are_cut_by_columns_and_not_by_characters() {
        assert_eq!(fit("wide 漢字漢字", 9), "wide 漢…");
        assert_eq!(fit("wide 漢字漢字", 13), "wide 漢字漢字");
        assert_eq!(fit("abc", 2), "a…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(spread("a title", "1.0s", 20), "a title         1.0s");
        assert_eq!(measure_text_width(&spread("漢字 a long title that does not fit", "12.0s", 21)), 21);
        assert_eq!(spread("a title", "1.0s", 6), "a tit…");
    }
}
