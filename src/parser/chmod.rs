//! Modes of `--chmod`, after expansion: octal, or symbolic as `chmod` reads them (with a umask of 0).

use nom::branch::alt;
use nom::bytes::complete::take_while_m_n;
use nom::character::complete::{char, one_of};
use nom::combinator::{all_consuming, map, value};
use nom::multi::{many0, many1, separated_list1};
use nom::{IResult, Parser};

/// A mode, or a change of modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `ug+rw-x`: whose bits, and what happens to them in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    /// Mask of all bits of those who are named.
    who: u32,
    actions: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Action {
    operator: char,
    permissions: Permissions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Permissions {
    /// Any of `rwxXst`.
    Letters(Vec<char>),
    /// The bits that `u`, `g` or `o` has: by how far they are shifted.
    Copy(u32),
}

impl Mode {
    /// Reads a mode such as `755`, `u=rwX,go=rX` or `+t`.
    pub fn parse(text: &str) -> Result<Mode, String> {
        let octal = map(take_while_m_n(1, 6, |c: char| c.is_digit(8)), |digits| u32::from_str_radix(digits, 8).unwrap_or(u32::MAX));
        let symbolic = map(separated_list1(char(','), clause), Kind::Symbolic);
        let parsed = all_consuming(alt((map(octal, Kind::Octal), symbolic))).parse(text);
        match parsed {
            Ok((_, Kind::Octal(bits))) if bits > 0o7777 => Err(format!("mode `{text}` is greater than 7777")),
            Ok((_, kind)) => Ok(Mode(kind)),
            Err(_) => Err(format!("`{text}` is no mode")),
        }
    }

    /// The mode (twelve bits) of a file that has `current`.
    pub fn apply(&self, current: u32, is_dir: bool) -> u32 {
        let clauses = match &self.0 {
            Kind::Octal(bits) => return *bits,
            Kind::Symbolic(clauses) => clauses,
        };
        let mut mode = current & 0o7777;
        for clause in clauses {
            for action in &clause.actions {
                let bits = action.permissions.bits(mode, is_dir) & clause.who;
                mode = match action.operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    // Setuid and setgid of a directory stay unless they are named.
                    _ if is_dir => (mode & !(clause.who & !0o6000)) | bits,
                    _ => (mode & !clause.who) | bits,
                };
            }
        }
        mode
    }
}

impl Permissions {
    /// The bits for user, group and others at once.
    fn bits(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Permissions::Copy(shift) => ((mode >> shift) & 0o7) * 0o111,
            Permissions::Letters(letters) => letters.iter().fold(0, |bits, letter| {
                bits | match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if is_dir || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            }),
        }
    }
}

fn clause(input: &str) -> IResult<&str, Clause> {
    let who = map(many0(one_of("ugoa")), |who| {
        let named = who.iter().fold(0, |mask, who| {
            mask | match who {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                _ => 0o7777,
            }
        });
        if named == 0 { 0o7777 } else { named }
    });
    map((who, many1(action)), |(who, actions)| Clause { who, actions }).parse(input)
}

fn action(input: &str) -> IResult<&str, Action> {
    let copy = alt((value(6, char('u')), value(3, char('g')), value(0, char('o'))));
    let permissions = alt((map(copy, Permissions::Copy), map(many0(one_of("rwxXst")), Permissions::Letters)));
    map((one_of("+-="), permissions), |(operator, permissions)| Action { operator, permissions }).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_files_and_directories_as_chmod_does() {
        for (text, current, is_dir, expected) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o4755, false, 0o644),
            ("4755", 0o600, false, 0o4755),
            ("0", 0o777, false, 0),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("-w", 0o666, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o1777),
            ("u-x,g=u", 0o750, false, 0o660),
            ("g=u-w", 0o740, false, 0o750),
            ("go=", 0o777, false, 0o700),
            ("=r", 0o777, false, 0o444),
            ("ug+rw-x", 0o171, false, 0o661),
            ("u=rwx", 0o2711, true, 0o2711),
            ("g=rx", 0o2775, true, 0o2755),
            ("g=rx", 0o2775, false, 0o755),
        ] {
            let mode = Mode::parse(text).unwrap();
            assert_eq!(format!("{:o}", mode.apply(current, is_dir)), format!("{expected:o}"), "{text} on {current:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "8", "99", "77777", "rwx", "u", "u+q", "u=rwx,", "u rwx", "-", "+x,755", "u=gr"] {
            assert_eq!(Mode::parse(text).is_ok(), text == "-", "{text}");
        }
    }
}
