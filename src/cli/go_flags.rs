//! Flags as Docker's command line takes them, where the parser here does not by itself: switches with a value (`--rm=false`, `-it=true`), values that begin with a dash
//! (`--since -1h`), and words behind the image that look like flags (`run IMAGE -v`, `exec CONTAINER -- ls`), which belong to the container's command.
//!
//! What is unusual is rewritten to what means the same and is usual, before anything is parsed. A command line without either is left alone.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::commands::build::boolean;

/// The arguments, the program's name first, in the form that the parser takes; `root` describes the whole command line.
pub(super) fn normal(args: Vec<OsString>, root: impl FnOnce() -> Command) -> Vec<OsString> {
    if !args.iter().skip(1).any(has_value) && !has_flag_behind_word(&args) {
        return args;
    }
    rewritten(args, root())
}

/// The same, whether it looks usual or not: for a line that the parser has refused, which may hold a value that begins with a dash.
pub(super) fn rewritten(args: Vec<OsString>, root: Command) -> Vec<OsString> {
    let globals = root.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    Rewriting { command: root, globals, begun: 1, done: Vec::with_capacity(args.len()) }.run(args)
}

/// Whether it looks like a switch with a value.
fn has_value(arg: &OsString) -> bool {
    arg.to_str().is_some_and(|text| text.starts_with('-') && text.rsplit_once('=').is_some_and(|(_, value)| boolean(value).is_ok()))
}

/// Whether a word that begins with a dash follows one that does not, further on than the name of the command: that one may be an image. (Which of them is one only a description
/// of all flags tells, and making that takes half a millisecond.)
fn has_flag_behind_word(args: &[OsString]) -> bool {
    let is_flag = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"-");
    args.iter().skip(2).zip(args.iter().skip(3)).any(|(word, next)| !is_flag(word) && is_flag(next))
}

struct Rewriting {
    command: Command,
    /// The flags that every command takes.
    globals: Vec<Arg>,
    /// Where the arguments of `command` begin.
    begun: usize,
    done: Vec<OsString>,
}

impl Rewriting {
    fn run(mut self, args: Vec<OsString>) -> Vec<OsString> {
        let mut left = args.into_iter();
        self.done.extend(left.next());
        while let Some(arg) = left.next() {
            let text = arg.to_str().unwrap_or_default().to_owned();
            let text = text.as_str();
            let wants_value = match text {
                "--" => {
                    self.done.push(arg);
                    break;
                }
                _ if text.starts_with("--") => self.long(text.to_owned()),
                _ if text.starts_with('-') && text.len() > 1 => self.short(text.to_owned()),
                _ => {
                    if let Some(command) = self.command.find_subcommand(text) {
                        // Its flags are described only when it is asked for.
                        let mut command = command.clone();
                        command.build();
                        (self.command, self.begun) = (command, self.done.len() + 1);
                        self.done.push(arg);
                        continue;
                    }
                    self.done.push(arg);
                    if self.command.get_positionals().any(Arg::is_trailing_var_arg_set) {
                        let rest: Vec<OsString> = left.by_ref().collect();
                        // The parser takes flags for its own up to the first `--`, which it keeps, or to the second word.
                        if rest.first().is_some_and(|first| first.as_encoded_bytes().starts_with(b"-")) {
                            self.done.push("--".into());
                        }
                        self.done.extend(rest);
                    }
                    continue;
                }
            };
            if wants_value {
                match (left.next(), self.done.last_mut()) {
                    // Joined to its flag, as the parser takes one by itself for another flag.
                    (Some(value), Some(flag)) if value.len() > 1 && value.as_encoded_bytes().starts_with(b"-") => {
                        if text.starts_with("--") {
                            flag.push("=");
                        }
                        flag.push(value);
                    }
                    (value, _) => self.done.extend(value),
                }
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
        let found = self.arguments().find(is_it);
        let wants = value.is_none() && found.is_some_and(wants_value);
        match (found.filter(|arg| is_switch(arg)), value.map(boolean)) {
            (Some(_), Some(Ok(true))) => self.done.push(format!("--{name}").into()),
            (Some(switch), Some(Ok(false))) => {
                let (long, short) = (switch.get_long().map(str::to_owned), switch.get_short());
                self.turn_off(long.as_deref(), short);
            }
            _ => self.done.push(text.clone().into()),
        }
        wants
    }

    fn arguments(&self) -> impl Iterator<Item = &Arg> {
        self.command.get_arguments().chain(&self.globals)
    }

    /// Takes `-abc`, `-abc=value` or `-oVALUE`; says whether the value of the last is the next argument.
    fn short(&mut self, text: String) -> bool {
        let (body, mut kept, mut wants) = (&text[1..], String::from("-"), false);
        for (at, letter) in body.char_indices() {
            let rest = &body[at + letter.len_utf8()..];
            let found = self.arguments().find(|arg| arg.get_short() == Some(letter));
            let Some(switch) = found.filter(|arg| is_switch(arg)) else {
                kept.push_str(&body[at..]);
                wants = rest.is_empty() && found.is_some_and(wants_value);
                break;
            };
            match rest.strip_prefix('=').map(boolean) {
                Some(Ok(true)) => kept.push(letter),
                Some(Ok(false)) => {
                    let long = switch.get_long().map(str::to_owned);
                    self.turn_off(long.as_deref(), Some(letter));
                }
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
    let may_stand_alone = arg.is_require_equals_set() || arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !may_stand_alone
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
            ("strake run -e --rm=true i", "strake run -e--rm=true i"),
            ("strake run --rm -ite -A=b --name -n i -x", "strake run --rm -ite-A=b --name=-n i -- -x"),
            ("strake --root -r logs c --since -1h --tail -", "strake --root=-r logs c --since=-1h --tail -"),
            ("strake run i -- -x", "strake run i -- -- -x"),
            ("strake run i c -- -x", "strake run i c -- -x"),
            ("strake run --rm --entrypoint echo i -e A -v x:/y", "strake run --rm --entrypoint echo i -- -e A -v x:/y"),
            ("strake run -v a:/b --rm i", "strake run -v a:/b --rm i"),
            ("strake run -v a:/b --rm -it i c -e A", "strake run -v a:/b --rm -it i c -e A"),
            ("strake --root r container create --name n i --rm=true", "strake --root r container create --name n i -- --rm=true"),
            ("strake exec -it -u 1 c -e", "strake exec -it -u 1 c -- -e"),
            ("strake top c -o pid", "strake top c -- -o pid"),
            ("strake ps -a -f x=y -q", "strake ps -a -f x=y -q"),
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
