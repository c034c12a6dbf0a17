//! Flags as Docker's command line takes them, where the parser here does not by itself: switches with a value (`--rm=false`, `-it=true`), and a `--` behind the image, which belongs to the
//! container's command.
//!
//! What is unusual is rewritten to what means the same and is usual, before anything is parsed. A command line without either is left alone.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::commands::build::boolean;

/// The arguments, the program's name first, in the form that the parser takes; `root` describes the whole command line.
pub(super) fn normal(args: Vec<OsString>, root: impl FnOnce() -> Command) -> Vec<OsString> {
    if !args.iter().skip(1).any(may_be_unusual) {
        return args;
    }
    let mut root = root();
    root.build();
    Rewriting { command: &root, begun: 1, done: Vec::with_capacity(args.len()) }.run(args)
}

fn may_be_unusual(arg: &OsString) -> bool {
    let Some(text) = arg.to_str() else { return false };
    text == "--" || (text.starts_with('-') && text.rsplit_once('=').is_some_and(|(_, value)| boolean(value).is_ok()))
}

struct Rewriting<'a> {
    command: &'a Command,
    /// Where the arguments of `command` begin.
    begun: usize,
    done: Vec<OsString>,
}

impl Rewriting<'_> {
    fn run(mut self, args: Vec<OsString>) -> Vec<OsString> {
        let mut left = args.into_iter();
        self.done.extend(left.next());
        while let Some(arg) = left.next() {
            let text = arg.to_str().unwrap_or_default();
            let wants_value = match text {
                "--" => {
                    self.done.push(arg);
                    break;
                }
                _ if text.starts_with("--") => self.long(text.to_owned()),
                _ if text.starts_with('-') && text.len() > 1 => self.short(text.to_owned()),
                _ => {
                    if let Some(command) = self.command.find_subcommand(text) {
                        (self.command, self.begun) = (command, self.done.len() + 1);
                        self.done.push(arg);
                        continue;
                    }
                    self.done.push(arg);
                    if self.command.get_positionals().any(Arg::is_trailing_var_arg_set) {
                        // The parser takes the first `--` that it meets for its own.
                        let rest: Vec<OsString> = left.by_ref().collect();
                        let own = rest.first().filter(|first| *first == "--").cloned();
                        self.done.extend(own.into_iter().chain(rest));
                    }
                    continue;
                }
            };
            if wants_value {
                self.done.extend(left.next());
            }
        }
        self.done.extend(left);
        self.done
    }

    /// Takes `--name` or `--name=value`; says whether its value is the next argument.
    fn long(&mut self, text: String) -> bool {
        let body = text.trim_start_matches('-');
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let is_it = |arg: &&Arg| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name));
        let found = self.command.get_arguments().find(is_it);
        match (found.filter(|arg| is_switch(arg)), value.map(boolean)) {
            (Some(_), Some(Ok(true))) => self.done.push(format!("--{name}").into()),
            (Some(switch), Some(Ok(false))) => self.turn_off(switch.get_long(), switch.get_short()),
            _ => self.done.push(text.clone().into()),
        }
        value.is_none() && found.is_some_and(wants_value)
    }

    /// Takes `-abc`, `-abc=value` or `-oVALUE`; says whether the value of the last is the next argument.
    fn short(&mut self, text: String) -> bool {
        let (body, mut kept, mut wants) = (&text[1..], String::from("-"), false);
        for (at, letter) in body.char_indices() {
            let rest = &body[at + letter.len_utf8()..];
            let found = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            let Some(switch) = found.filter(|arg| is_switch(arg)) else {
                kept.push_str(&body[at..]);
                wants = rest.is_empty() && found.is_some_and(wants_value);
                break;
            };
            match rest.strip_prefix('=').map(boolean) {
                Some(Ok(true)) => kept.push(letter),
                Some(Ok(false)) => self.turn_off(switch.get_long(), Some(letter)),
                Some(Err(_)) => kept.push_str(&body[at..]),
                None => {
                    kept.push(letter);
                    continue;
                }
            }
            break;
        }
        if kept.len() > 1 {
            self.done.push(kept.into());
        }
        wants
    }

    /// A switch is off, also if it was on before.
    fn turn_off(&mut self, long: Option<&str>, short: Option<char>) {
        let (long, short) = (long.map(|name| format!("--{name}")), short.map(|letter| format!("-{letter}")));
        let mut at = 0;
        let begun = self.begun;
        self.done.retain(|arg| {
            at += 1;
            let is_it = arg.to_str().is_some_and(|text| Some(text) == long.as_deref() || Some(text) == short.as_deref());
            at <= begun || !is_it
        });
    }
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Whether a value has to follow that is not given with `=`.
fn wants_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::normal;
    use crate::cli::Arguments;

    #[test]
    fn dockers_forms_mean_what_they_mean_there() {
        let rewritten = |line: &str| {
            let args = line.split(' ').map(Into::into).collect();
            let done = normal(args, Arguments::command);
            done.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("strake run --rm=true --init=false -it=false i", "strake run --rm -i i"),
            ("strake run --rm --rm=false -t=1 i c --rm=true", "strake run -t i c --rm=true"),
            ("strake run -e A=true --name=1 -v=true i", "strake run -e A=true --name=1 -v=true i"),
            ("strake run -e --rm=true i", "strake run -e --rm=true i"),
            ("strake run i -- -x", "strake run i -- -- -x"),
            ("strake run i c -- -x", "strake run i c -- -x"),
            ("strake run -- i -- -x", "strake run -- i -- -x"),
            ("strake --root r run --privileged=T i", "strake --root r run --privileged i"),
            ("strake container rm -f=true c", "strake container rm -f c"),
            ("strake exec c -- ls", "strake exec c -- -- ls"),
            ("strake run --rm=maybe i", "strake run --rm=maybe i"),
            ("strake build --pull=false .", "strake build --pull=false ."),
        ] {
            assert_eq!(rewritten(line), expected, "{line}");
        }
    }
}
