//! Modes of `--chmod`, after expansion: octal, or symbolic.
//!
//! Symbolic modes are those of BSD's `chmod` with a umask of 0, as in BuildKit: `X` asks for the bits that the file had at first, copies (`g=u`) may be mixed with
//! letters, and `=` takes setuid and setgid away from directories too. As in newer POSIX, `X` works with every operator.

use nom::branch::alt;
use nom::bytes::complete::take_while1;
use nom::character::complete::one_of;
use nom::combinator::{all_consuming, map};
use nom::multi::{many0, many1, separated_list1};
use nom::{IResult, Parser};

/// A mode, or a change of modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Octal(u32),
    Symbolic(Vec<Change>),
}

/// A step of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set(u32),
    Clear(u32),
    /// Sets bits of a directory, or of a file that was executable at first.
    SetExecutable(u32),
    /// Clears them likewise.
    ClearExecutable(u32),
    /// Gives the three bits at `from` to all classes in `to`, as the operator says.
    Copy {
        from: u32,
        to: u32,
        operator: char,
    },
}

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;

/// What `a`, or no class at all, stands for: everything but the sticky bit.
const ALL: u32 = SET_ID | 0o777;

impl Mode {
    /// Reads a mode such as `755`, `u=rwX,go=rX` or `+t`.
    pub fn parse(text: &str) -> Result<Mode, String> {
        let octal = map(take_while1(|c: char| c.is_digit(8)), |digits: &str| Kind::Octal(octal(digits)));
        let symbolic = map(separated_list1(one_of(","), clause), |clauses| Kind::Symbolic(clauses.concat()));
        match all_consuming(alt((octal, symbolic))).parse(text) {
            Ok((_, Kind::Octal(bits))) if bits > 0o7777 => Err(format!("mode `{text}` is greater than 7777")),
            Ok((_, kind)) => Ok(Mode(kind)),
            Err(_) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Err(format!("`{text}` is no mode: an octal mode has only the digits 0 to 7"))
            }
            Err(_) => Err(format!("`{text}` is no mode: write it as `755` or as `u=rwX,go=rX`")),
        }
    }

    /// The mode of directories that are made on the way to what gets this mode: as `mkdir(2)` takes a number; symbols say nothing of them.
    pub fn of_made_directories(&self) -> u32 {
        match &self.0 {
            Kind::Octal(bits) => bits & 0o777,
            Kind::Symbolic(_) => 0o755,
        }
    }

    /// The mode (twelve bits) of a file that has `current`.
    pub fn apply(&self, current: u32, is_dir: bool) -> u32 {
        let changes = match &self.0 {
            Kind::Octal(bits) => return *bits,
            Kind::Symbolic(changes) => changes,
        };
        let current = current & 0o7777;
        let executable = is_dir || current & 0o111 != 0;
        changes.iter().fold(current, |mode, change| match *change {
            Change::Set(bits) => mode | bits,
            Change::Clear(bits) => mode & !bits,
            Change::SetExecutable(bits) if executable => mode | bits,
            Change::ClearExecutable(bits) if executable => mode & !bits,
            Change::SetExecutable(_) | Change::ClearExecutable(_) => mode,
            Change::Copy { from, to, operator } => {
                let bits = (((mode >> from) & 0o7) * 0o111) & to;
                match operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !to) | bits,
                }
            }
        })
    }
}

/// The value of octal digits; as large as can be where it is too large.
fn octal(digits: &str) -> u32 {
    u32::from_str_radix(digits, 8).unwrap_or(u32::MAX)
}

/// `ug+rw-x`: classes, and what happens to them in turn.
fn clause(input: &str) -> IResult<&str, Vec<Change>> {
    let (rest, classes) = many0(one_of("ugoa")).parse(input)?;
    let named = classes.iter().fold(0, |mask, class| {
        mask | match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => ALL,
        }
    });
    let (rest, actions) = many1((one_of("+-="), many0(one_of("rwxXstugo")))).parse(rest)?;
    Ok((rest, actions.into_iter().flat_map(|(operator, letters)| changes(named, operator, &letters)).collect()))
}

/// What `letters` behind one operator do to the classes in `named` (none: all of them).
fn changes(named: u32, operator: char, letters: &[char]) -> Vec<Change> {
    let mut action = Action { who: named, operator, bits: 0, executable: false, assigned: false, changes: Vec::new() };
    // Letters that are no permission of others alone: they have no set-ID bits, and no sticky bit of their own.
    let only_others = named != 0 && named & !0o007 == 0;
    for letter in letters {
        match letter {
            'r' => action.bits |= 0o444,
            'w' => action.bits |= 0o222,
            'x' => action.bits |= 0o111,
            'X' => action.executable = true,
            's' if !only_others => action.bits |= SET_ID,
            't' if !only_others => {
                action.who |= STICKY;
                action.bits |= STICKY;
            }
            'u' => action.copy(6),
            'g' => action.copy(3),
            'o' => action.copy(0),
            _ => {}
        }
    }
    action.flush(true);
    action.changes
}

/// Letters behind one operator, as far as they are read.
struct Action {
    who: u32,
    operator: char,
    /// Bits that no change has yet.
    bits: u32,
    /// Whether an `X` is not in a change yet.
    executable: bool,
    /// Whether `=` has cleared the bits once.
    assigned: bool,
    changes: Vec<Change>,
}

impl Action {
    /// The bits of those who are meant.
    fn masked(&self, bits: u32) -> u32 {
        if self.who == 0 { bits } else { bits & self.who }
    }

    /// Makes changes of the letters so far. At the end, `=` clears bits even if there are no letters.
    fn flush(&mut self, end: bool) {
        let bits = self.masked(self.bits);
        if self.bits != 0 || end && self.operator == '=' && !self.assigned {
            match self.operator {
                '+' => self.changes.push(Change::Set(bits)),
                '-' => self.changes.push(Change::Clear(bits)),
                _ => self.changes.extend([Change::Clear(if self.who == 0 { ALL } else { self.who }), Change::Set(bits)]),
            }
            self.assigned = true;
        }
        if std::mem::take(&mut self.executable) {
            let bits = self.masked(0o111);
            self.changes.push(if self.operator == '-' { Change::ClearExecutable(bits) } else { Change::SetExecutable(bits) });
        }
        self.bits = 0;
    }

    /// Copies the bits of a class.
    fn copy(&mut self, from: u32) {
        self.flush(false);
        self.assigned = true;
        // A sticky bit that was named before does not name a class.
        let to = [0o700, 0o070, 0o007].into_iter().filter(|class| self.who == 0 || self.who & class != 0).sum();
        self.changes.push(Change::Copy { from, to, operator: self.operator });
    }
}
