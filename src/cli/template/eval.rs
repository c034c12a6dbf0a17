//! What a template says of a value.

use std::borrow::Cow;

use serde_json::Value;

use super::Failure;
use super::absent;
use super::functions;
use super::parse::{Node, Pipeline, Term};
use super::shown;

/// More than any script wants: a template cannot fill the memory.
const LONGEST: usize = 256 << 20;

/// What a template is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A value.
    Value,
    /// The titles of a table: what is missing is empty, and functions give what they get.
    Header,
}

/// Runs a template.
pub(super) fn render(nodes: &[Node], root: &Value, purpose: Purpose) -> Result<String, Failure> {
    let mut run = Run { root, purpose, variables: Vec::new(), out: String::new() };
    run.all(nodes, root)?;
    Ok(run.out)
}

/// How a block was left.
#[derive(PartialEq, Eq)]
enum Left {
    AtItsEnd,
    Break,
    Continue,
}

struct Run<'a> {
    root: &'a Value,
    purpose: Purpose,
    /// Variables, the innermost last.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn all(&mut self, nodes: &[Node], dot: &Value) -> Result<Left, Failure> {
        let outer = self.variables.len();
        let mut left = Left::AtItsEnd;
        for node in nodes {
            left = self.one(node, dot)?;
            if left != Left::AtItsEnd {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(left)
    }

    fn one(&mut self, node: &Node, dot: &Value) -> Result<Left, Failure> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Show(pipeline) => match self.value(pipeline, dot)? {
                Value::Null => self.out.push_str(absent::printed(path_of(pipeline))),
                value => shown::show(&value, path_of(pipeline), &mut self.out),
            },
            Node::Assign { name, declare, pipeline } => {
                let value = self.value(pipeline, dot)?;
                match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                    Some(known) if !declare => known.1 = value,
                    None if !declare => return Err(Failure::new(format!("there is no variable `${name}`"))),
                    _ => self.variables.push((name.clone(), value)),
                }
            }
            Node::If { condition, then, otherwise } => {
                let branch = if functions::is_true(&self.value(condition, dot)?) { then } else { otherwise };
                return self.all(branch, dot);
            }
            Node::With { name, value, then, otherwise } => {
                let value = self.value(value, dot)?;
                if !functions::is_true(&value) {
                    return self.all(otherwise, dot);
                }
                let outer = self.variables.len();
                self.variables.extend(name.iter().map(|name| (name.clone(), value.clone())));
                let left = self.all(then, &value);
                self.variables.truncate(outer);
                return left;
            }
            Node::Range { key, element, over, body, otherwise } => {
                let over = self.value(over, dot)?;
                return self.range((key.as_deref(), element.as_deref()), &over, body, otherwise, dot);
            }
            Node::Break => return Ok(Left::Break),
            Node::Continue => return Ok(Left::Continue),
        }
        if self.out.len() > LONGEST {
            return Err(Failure::new("the template gives too much text"));
        }
        Ok(Left::AtItsEnd)
    }

    fn range(
        &mut self,
        (key, element): (Option<&str>, Option<&str>),
        over: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Left, Failure> {
        let elements: Vec<(Value, Cow<'_, Value>)> = match over {
            Value::Null => Vec::new(),
            Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.into(), Cow::Borrowed(value))).collect(),
            // In the order of the keys, as Go does.
            Value::Object(_) => functions::sorted(over).into_iter().map(|(name, value)| (name.into(), Cow::Borrowed(value))).collect(),
            Value::Number(count) => {
                (0..count.as_i64().unwrap_or(0).min(1 << 20)).map(|index| (index.into(), Cow::Owned(index.into()))).collect()
            }
            other => return Err(Failure::new(format!("`range` goes over lists and maps, not over `{other}`"))),
        };
        if elements.is_empty() {
            return self.all(otherwise, dot);
        }
        for (index, value) in elements {
            let outer = self.variables.len();
            self.variables.extend(key.map(|name| (name.to_owned(), index)));
            self.variables.extend(element.map(|name| (name.to_owned(), value.as_ref().clone())));
            let left = self.all(body, &value)?;
            self.variables.truncate(outer);
            if left == Left::Break {
                break;
            }
        }
        Ok(Left::AtItsEnd)
    }

    fn value(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Failure> {
        let mut piped = None;
        for command in &pipeline.0 {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &[Term], piped: Option<Value>, dot: &Value) -> Result<Value, Failure> {
        let Some((first, rest)) = command.split_first() else { return Ok(Value::Null) };
        let Term::Function(name) = first else {
            // The one method that rows of lists have.
            if let (Term::Dot(fields), [argument]) = (first, rest)
                && fields.last().is_some_and(|field| field == "Label")
            {
                let (labels, key) = (dot.get("Labels").unwrap_or(&Value::Null), self.term(argument, dot)?);
                return Ok(if self.purpose == Purpose::Header { key } else { functions::label(labels, &key) });
            }
            if !rest.is_empty() || piped.is_some() {
                return Err(Failure::new("only functions take arguments"));
            }
            return self.term(first, dot);
        };
        // These two look at no more arguments than they need.
        if matches!(name.as_str(), "and" | "or") {
            let mut last = None;
            for term in rest {
                let value = self.term(term, dot)?;
                if functions::is_true(&value) == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped.or(last).ok_or_else(|| Failure::new(format!("`{name}` wants arguments")));
        }
        let mut arguments = rest.iter().map(|term| self.term(term, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        match self.purpose {
            Purpose::Value => functions::call(name, arguments).map_err(Failure::new),
            Purpose::Header => Ok(arguments.into_iter().find(Value::is_string).unwrap_or(Value::Null)),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, Failure> {
        match term {
            Term::Constant(value) => Ok(value.clone()),
            Term::Dot(fields) => self.fields(dot, fields),
            Term::Variable(name, fields) if name.is_empty() => self.fields(self.root, fields),
            Term::Variable(name, fields) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| Failure::new(format!("there is no variable `${name}`")))?;
                self.fields(value, fields)
            }
            Term::Group(pipeline, fields) => {
                let value = self.value(pipeline, dot)?;
                self.fields(&value, fields)
            }
            Term::Function(_) => self.command(std::slice::from_ref(term), None, dot),
        }
    }

    fn fields(&self, value: &Value, path: &[String]) -> Result<Value, Failure> {
        let mut at = value;
        for (depth, name) in path.iter().enumerate() {
            let above = depth.checked_sub(1).map(|above| path[above].as_str());
            at = match at.get(name) {
                Some(value) => value,
                None if self.purpose == Purpose::Header => return Ok(title(name).into()),
                // Such maps have whatever keys somebody gave them, so that none is unknown.
                None if at.is_object() && above.is_some_and(shown::is_map) => return Ok(Value::Null),
                None if at.is_object() && depth + 1 == path.len() => {
                    match absent::absent(name, above).or_else(|| absent::of_mount(at, name)) {
                        Some(value) => return Ok(value),
                        None => return Err(unknown(at, name, &path[..depth])),
                    }
                }
                None => return Err(unknown(at, name, &path[..depth])),
            };
        }
        Ok(at.clone())
    }
}

/// The fields that a pipeline shows as they are; none where it does anything else.
fn path_of(pipeline: &Pipeline) -> &[String] {
    match pipeline.0.as_slice() {
        [command] => match command.as_slice() {
            [Term::Dot(fields) | Term::Variable(_, fields) | Term::Group(_, fields)] => fields,
            _ => &[],
        },
        _ => &[],
    }
}

/// The title of a column that has none of its own: the words of its name.
fn title(name: &str) -> String {
    let known = [
        ("CPUPerc", "CPU %"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("RunningFor", "CREATED"),
        ("CreatedSince", "CREATED"),
        ("TotalCount", "TOTAL"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ];
    if let Some((_, title)) = known.iter().find(|(known, _)| *known == name) {
        return (*title).to_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && out.ends_with(char::is_lowercase) {
            out.push(' ');
        }
        out.push(c);
    }
    out.to_uppercase()
}

fn unknown(at: &Value, name: &str, above: &[String]) -> Failure {
    let fields: Vec<&str> = at.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
    let place = if above.is_empty() { String::new() } else { format!(" in `.{}`", above.join(".")) };
    let hint = if fields.is_empty() { "it has no fields".to_owned() } else { format!("the fields are {}", fields.join(", ")) };
    Failure { message: format!("there is no field `{name}`{place}"), hint: Some(hint) }
}
