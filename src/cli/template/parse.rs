//! From the text of a template to a tree.

use serde_json::{Number, Value};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Text as it is.
    Text(String),
    /// What a pipeline gives.
    Show(Pipeline),
    /// `$x := …` or `$x = …`.
    Assign { name: String, declare: bool, pipeline: Pipeline },
    /// `if`, with all its `else if` as further ones inside.
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `with`.
    With { name: Option<String>, value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `range`.
    Range { key: Option<String>, element: Option<String>, over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    /// `break` out of the innermost range.
    Break,
    /// `continue` with the next element.
    Continue,
}

/// Commands, each of which gets what the one before gave as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline(pub(super) Vec<Vec<Term>>);

/// A word of a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// A function by name.
    Function(String),
    /// A constant.
    Constant(Value),
    /// Fields of the dot; none is the dot itself.
    Dot(Vec<String>),
    /// Fields of a variable; the empty name is the whole value, `$`.
    Variable(String, Vec<String>),
    /// Fields of what a pipeline in parentheses gives.
    Group(Pipeline, Vec<String>),
}

impl Pipeline {
    /// Whether it has the field `name`, of whatever value.
    fn mentions(&self, name: &str) -> bool {
        let has = |fields: &[String]| fields.iter().any(|field| field == name);
        self.0.iter().flatten().any(|term| match term {
            Term::Function(_) | Term::Constant(_) => false,
            Term::Dot(fields) | Term::Variable(_, fields) => has(fields),
            Term::Group(pipeline, fields) => has(fields) || pipeline.mentions(name),
        })
    }
}

/// Whether any of these has the field `name`, of whatever value.
pub(super) fn mentions(nodes: &[Node], name: &str) -> bool {
    nodes.iter().any(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => false,
        Node::Show(pipeline) | Node::Assign { pipeline, .. } => pipeline.mentions(name),
        Node::If { condition: value, then, otherwise }
        | Node::With { value, then, otherwise, .. }
        | Node::Range { over: value, body: then, otherwise, .. } => {
            value.mentions(name) || mentions(then, name) || mentions(otherwise, name)
        }
    })
}

/// How deep blocks and parentheses may lie in each other.
const DEEPEST: usize = 100;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Field(String),
    Dot,
    Variable(String),
    Word(String),
    Constant(Value),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    Close,
    /// A blank, which ends a chain of fields.
    Blank,
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        End::Text => Ok(nodes),
        End::Keyword(word, _) => Err(format!("`{{{{{word}}}}}` closes nothing")),
    }
}

/// Splits text from actions, and trims where an action says so.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (after, trim_before) = match after.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            Some(after) => (after, true),
            None => (after, false),
        };
        let before = unescape(before);
        let kept = if trim { before.trim_start() } else { &before };
        let kept = if trim_before { kept.trim_end() } else { kept };
        if !kept.is_empty() {
            pieces.push(Piece::Text(kept.to_owned()));
        }
        let after = match after.trim_start().strip_prefix("/*") {
            Some(comment) => comment.split_once("*/").ok_or("a comment is not closed by `*/`")?.1,
            None => after,
        };
        let (tokens, after, trim_after) = tokens(after)?;
        trim = trim_after;
        if !tokens.iter().all(|token| *token == Token::Blank) {
            pieces.push(Piece::Action(tokens));
        }
        rest = after;
    }
    let last = unescape(rest);
    let last = if trim { last.trim_start() } else { &last };
    if !last.is_empty() {
        pieces.push(Piece::Text(last.to_owned()));
    }
    Ok(pieces)
}

/// `\\t` and `\\n` as the shell leaves them in single quotes.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// The words of an action, what follows its end, and whether blanks there are dropped.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if trimmed.len() < rest.len() {
            tokens.push(Token::Blank);
            if let Some(after) = trimmed.strip_prefix("-}}") {
                return Ok((tokens, after, true));
            }
        }
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(rest: &str) -> Result<(Token, &str), String> {
    let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(first) = rest.chars().next() else { return Err("an action is not closed by `}}`".to_owned()) };
    let after = &rest[first.len_utf8()..];
    Ok(match first {
        '|' => (Token::Pipe, after),
        ',' => (Token::Comma, after),
        '(' => (Token::Open, after),
        ')' => (Token::Close, after),
        '=' => (Token::Assign, after),
        ':' if after.starts_with('=') => (Token::Declare, &after[1..]),
        '$' => (Token::Variable(after[..name(after)].to_owned()), &after[name(after)..]),
        '.' if after.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            (Token::Field(after[..name(after)].to_owned()), &after[name(after)..])
        }
        '.' => (Token::Dot, after),
        '"' => quoted(rest)?,
        '`' => {
            let (text, after) = after.split_once('`').ok_or("a text is not closed by a backquote")?;
            (Token::Constant(text.into()), after)
        }
        '0'..='9' | '+' | '-' => number(rest)?,
        c if c.is_alphabetic() || c == '_' => (Token::Word(rest[..name(rest)].to_owned()), &rest[name(rest)..]),
        c => return Err(format!("`{c}` is not expected here")),
    })
}

fn number(rest: &str) -> Result<(Token, &str), String> {
    let end = rest.char_indices().skip(1).find(|(_, c)| !c.is_ascii_alphanumeric() && *c != '.').map_or(rest.len(), |(at, _)| at);
    let (text, after) = rest.split_at(end);
    let whole = text.parse::<i64>().ok().map(Number::from);
    let number = whole.or_else(|| text.parse().ok().and_then(Number::from_f64)).ok_or_else(|| format!("`{text}` is not a number"))?;
    Ok((Token::Constant(Value::Number(number)), after))
}

/// A text in double quotes, with the escapes of Go that JSON has too, and the few others.
fn quoted(rest: &str) -> Result<(Token, &str), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Constant(text.into()), &rest[at + 1..])),
            '\\' => text.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, 'r')) => '\r',
                Some((_, c @ ('"' | '\\' | '\''))) => c,
                other => return Err(format!("`\\{}` is not a character", other.map_or(String::new(), |(_, c)| c.to_string()))),
            }),
            c => text.push(c),
        }
    }
    Err("a text is not closed by a double quote".to_owned())
}

/// What ends a block: the end of the text, or `end` or `else` with what follows it.
enum End {
    Text,
    Keyword(String, Vec<Token>),
}

fn block(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, End), String> {
    if depth > DEEPEST {
        return Err("blocks lie too deep in each other".to_owned());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let mut reader = Reader::new(tokens);
        let keyword = match reader.peek() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" | "else" => {
                reader.take();
                return Ok((nodes, End::Keyword(keyword, reader.rest())));
            }
            "if" | "with" | "range" => {
                reader.take();
                nodes.push(control(&keyword, reader, pieces, depth)?);
            }
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "define" | "template" | "block" => return Err(format!("`{{{{{keyword}}}}}` is not supported")),
            _ => nodes.push(reader.statement()?),
        }
    }
    Ok((nodes, End::Text))
}

/// The rest of a block with a keyword, up to its `end`.
fn control(keyword: &str, mut reader: Reader, pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, String> {
    let (names, pipeline) = reader.declaration()?;
    let (body, end) = block(pieces, depth + 1)?;
    let otherwise = match end {
        End::Text => return Err(format!("`{{{{{keyword}}}}}` has no `{{{{end}}}}`")),
        End::Keyword(word, _) if word == "end" => Vec::new(),
        End::Keyword(_, rest) => {
            let mut rest = Reader::new(rest);
            match rest.peek().cloned() {
                // `else if` is an `else` with an `if` inside, which ends where that does.
                Some(Token::Word(word)) if word == "if" || word == "with" => {
                    rest.take();
                    vec![control(&word, rest, pieces, depth + 1)?]
                }
                Some(_) => return Err("`else` takes nothing but `if` or `with`".to_owned()),
                None => match block(pieces, depth + 1)? {
                    (nodes, End::Keyword(word, _)) if word == "end" => nodes,
                    _ => return Err(format!("`{{{{{keyword}}}}}` has no `{{{{end}}}}`")),
                },
            }
        }
    };
    let mut names = names.into_iter();
    Ok(match keyword {
        "if" => Node::If { condition: pipeline, then: body, otherwise },
        "with" => Node::With { name: names.next(), value: pipeline, then: body, otherwise },
        _ => {
            let (first, second) = (names.next(), names.next());
            let (key, element) = if second.is_some() { (first, second) } else { (None, first) };
            Node::Range { key, element, over: pipeline, body, otherwise }
        }
    })
}

fn unexpected(token: &Token) -> String {
    let shown = match token {
        Token::Field(name) => format!(".{name}"),
        Token::Variable(name) => format!("${name}"),
        Token::Word(word) => word.clone(),
        Token::Constant(value) => value.to_string(),
        other => match other {
            Token::Dot => ".",
            Token::Pipe => "|",
            Token::Comma => ",",
            Token::Declare => ":=",
            Token::Assign => "=",
            Token::Open => "(",
            _ => ")",
        }
        .to_owned(),
    };
    format!("`{shown}` is not expected here")
}

/// The words of one action.
struct Reader {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Reader {
    fn new(tokens: Vec<Token>) -> Reader {
        Reader { tokens: tokens.into_iter().peekable() }
    }

    fn rest(self) -> Vec<Token> {
        self.tokens.collect()
    }

    /// The next word.
    fn peek(&mut self) -> Option<&Token> {
        while self.tokens.next_if_eq(&Token::Blank).is_some() {}
        self.tokens.peek()
    }

    fn take(&mut self) -> Option<Token> {
        self.peek();
        self.tokens.next()
    }

    fn statement(&mut self) -> Result<Node, String> {
        if let Some(Token::Variable(name)) = self.peek().cloned() {
            let ahead: Vec<Token> = self.tokens.clone().filter(|token| *token != Token::Blank).take(2).collect();
            if let Some(op @ (Token::Declare | Token::Assign)) = ahead.get(1) {
                let declare = *op == Token::Declare;
                self.take();
                self.take();
                return Ok(Node::Assign { name, declare, pipeline: self.whole_pipeline()? });
            }
        }
        Ok(Node::Show(self.whole_pipeline()?))
    }

    /// `$a, $b := pipeline`, or only the pipeline.
    fn declaration(&mut self) -> Result<(Vec<String>, Pipeline), String> {
        let all: Vec<Token> = self.tokens.clone().filter(|token| *token != Token::Blank).collect();
        let mut names = Vec::new();
        if let Some(at) = all.iter().position(|token| matches!(token, Token::Declare | Token::Assign)) {
            for token in &all[..at] {
                match token {
                    Token::Variable(name) => names.push(name.clone()),
                    Token::Comma => {}
                    _ => return Err("only variables can be given a value".to_owned()),
                }
            }
            for _ in 0..=at {
                self.take();
            }
        }
        Ok((names, self.whole_pipeline()?))
    }

    fn whole_pipeline(&mut self) -> Result<Pipeline, String> {
        let pipeline = self.pipeline(0)?;
        match self.peek() {
            None => Ok(pipeline),
            Some(token) => Err(unexpected(token)),
        }
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, String> {
        if depth > DEEPEST {
            return Err("parentheses lie too deep in each other".to_owned());
        }
        let mut commands = vec![Vec::new()];
        loop {
            let term = match self.peek().cloned() {
                None | Some(Token::Close) => break,
                Some(Token::Pipe) => {
                    self.take();
                    commands.push(Vec::new());
                    continue;
                }
                Some(token) => {
                    self.take();
                    self.term(token, depth)?
                }
            };
            if let Some(command) = commands.last_mut() {
                command.push(term);
            }
        }
        match commands.iter().any(Vec::is_empty) {
            true => Err("a command is missing".to_owned()),
            false => Ok(Pipeline(commands)),
        }
    }

    fn term(&mut self, token: Token, depth: usize) -> Result<Term, String> {
        Ok(match token {
            Token::Constant(value) => Term::Constant(value),
            Token::Word(word) => match word.as_str() {
                "true" => Term::Constant(Value::Bool(true)),
                "false" => Term::Constant(Value::Bool(false)),
                "nil" => Term::Constant(Value::Null),
                _ if super::functions::is_known(&word) => Term::Function(word),
                _ => return Err(format!("there is no function `{word}`")),
            },
            Token::Dot => Term::Dot(Vec::new()),
            Token::Field(name) => Term::Dot(self.fields(vec![name])),
            Token::Variable(name) => Term::Variable(name, self.fields(Vec::new())),
            Token::Open => {
                let inner = self.pipeline(depth + 1)?;
                if self.take() != Some(Token::Close) {
                    return Err("a parenthesis is not closed".to_owned());
                }
                Term::Group(inner, self.fields(Vec::new()))
            }
            other => return Err(unexpected(&other)),
        })
    }

    /// The fields that follow without a blank.
    fn fields(&mut self, mut fields: Vec<String>) -> Vec<String> {
        while let Some(Token::Field(name)) = self.tokens.next_if(|token| matches!(token, Token::Field(_))) {
            fields.push(name);
        }
        fields
    }
}
