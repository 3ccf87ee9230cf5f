//! YAML text as a tree of nodes that know where they stand.
//!
//! Built from the parser's events rather than from its maps, so that all duplicate keys are found and
//! the style of every scalar is known.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Problems, Span};

/// Deeper nesting than this is refused; a topology needs seven levels.
const DEPTH_MAX: usize = 64;

/// A node. A node that an alias repeats is shared.
#[derive(Debug)]
pub(super) struct Node {
    pub span: Span,
    pub data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    Scalar { text: String, style: ScalarStyle },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// A key of a mapping and its value. The keys of a mapping differ.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Rc<Node>,
}

/// What a plain scalar stands for (YAML 1.2, core schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Double,
    String,
}

impl Kind {
    /// The kind of a plain scalar.
    pub fn of(text: &str) -> Kind {
        let digits = |prefix, radix| {
            text.strip_prefix(prefix).is_some_and(|rest: &str| i64::from_str_radix(rest, radix).is_ok())
        };
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
            ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => Kind::Double,
            _ if text.parse::<i64>().is_ok() || digits("0x", 16) || digits("0o", 8) => Kind::Int,
            _ if text.contains(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok() => Kind::Double,
            _ => Kind::String,
        }
    }

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Bool => "a bool",
            Kind::Int => "an int",
            Kind::Double => "a double",
            Kind::String => "a string",
        }
    }
}

/// Parses a file of one document. `None` if it has none or its syntax is wrong; the problems say so.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Rc<Node>> {
    let mut tree = Tree { open: Vec::new(), anchors: BTreeMap::new(), root: None, problems };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                let span = Span { start: span.start.index(), end: span.end.index() };
                tree.take(event, span)?;
            }
            Err(error) => {
                let at = error.marker().index();
                let message = format!("this is no valid YAML: {}", error.info());
                let help = syntax_help(text, at);
                tree.problems.error(Span { start: at, end: at + 1 }, message).help(help);
                return None;
            }
        }
    }
    if tree.root.is_none() {
        tree.problems.error(Span::default(), "the file is empty").help("begin with `version: 1`");
    }
    tree.root
}

/// What most likely went wrong in YAML that cannot be parsed, by what stands before the place.
fn syntax_help(text: &str, at: usize) -> &'static str {
    let before: Vec<char> = text.chars().take(at + 1).collect();
    let line: String = before.iter().rev().take_while(|c| !matches!(c, '\n' | '\r')).collect();
    if line.contains("{$") {
        "between braces or brackets a scalar with `${…}` must be quoted, as in { topic: \"${TOPIC}\" }"
    } else if line.contains('\t') {
        "indent by spaces, not tabs"
    } else {
        "quote an expression as a whole, as in where: 'status == \"paid\"'"
    }
}

struct Tree<'p> {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    problems: &'p mut Problems,
}

/// A collection whose end has not come yet.
struct Open {
    start: usize,
    anchor: usize,
    data: Data,
    /// A mapping's key that waits for its value.
    key: Option<Key>,
    /// The keys so far and where they stand.
    keys: BTreeMap<String, Span>,
}

enum Key {
    Named(String, Span),
    /// No scalar, or a duplicate: reported, and its value left out.
    Refused,
}

impl Tree<'_> {
    /// `None`: give up, the problems say why.
    fn take(&mut self, event: Event, span: Span) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.add(Node { span, data: Data::Scalar { text: text.into_owned(), style } }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.begin(span, anchor, Data::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.begin(span, anchor, Data::Mapping(Vec::new()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                let span = Span { start: open.start, end: span.end.max(open.start) };
                self.add(Node { span, data: open.data }, open.anchor);
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.add_shared(Rc::clone(node)),
                None => {
                    self.problems.error(span, "this alias stands inside of what it repeats");
                    return None;
                }
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                self.problems
                    .error(span, "the file holds a second document")
                    .help("a file is one topology: put the other one into a file of its own");
                return None;
            }
            Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Some(())
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.problems
                .error(span, "YAML tags (`!…`) have no meaning in a topology")
                .help("leave the tag out");
        }
    }

    fn begin(&mut self, span: Span, anchor: usize, data: Data) -> Option<()> {
        if self.open.len() == DEPTH_MAX {
            self.problems.error(span, format!("nested more than {DEPTH_MAX} levels deep"));
            return None;
        }
        self.open.push(Open { start: span.start, anchor, data, key: None, keys: BTreeMap::new() });
        Some(())
    }

    fn add(&mut self, mut node: Node, anchor: usize) {
        // A value left empty has its place somewhere behind; its key tells the reader more.
        if let Some(Open { key: Some(Key::Named(_, key_span)), .. }) = self.open.last()
            && node.span.start == node.span.end
        {
            node.span = *key_span;
        }
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add_shared(node);
    }

    fn add_shared(&mut self, node: Rc<Node>) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.data {
            Data::Scalar { .. } => {} // only collections are open
            Data::Sequence(items) => items.push(node),
            Data::Mapping(entries) => match open.key.take() {
                Some(Key::Named(key, key_span)) => entries.push(Entry { key, key_span, value: node }),
                Some(Key::Refused) => {}
                None => self.begin_entry(&node),
            },
        }
    }

    fn begin_entry(&mut self, key: &Node) {
        let Some(open) = self.open.last_mut() else { return };
        let Data::Scalar { text, .. } = &key.data else {
            self.problems.error(key.span, "a key must be a name").help(
                "a mapping stands where a name is expected; quote a scalar that begins with `{` or `[`, such as \
                 \"${VARIABLE}\"",
            );
            open.key = Some(Key::Refused);
            return;
        };
        if let Some(&first) = open.keys.get(text) {
            self.problems.error(key.span, format!("duplicate key `{text}`")).first_at(first);
            open.key = Some(Key::Refused);
            return;
        }
        open.keys.insert(text.clone(), key.span);
        open.key = Some(Key::Named(text.clone(), key.span));
    }
}

/// For each character of a scalar's text, and for its end, where it stands in the file. `None` where
/// the two cannot be aligned (escapes other than those of quotes and backslashes).
pub(super) fn places(source: &[char], span: Span, style: ScalarStyle, text: &str) -> Option<Vec<usize>> {
    let mut at = span.start;
    match style {
        // The parser's place of a block scalar is that of its first line of text.
        ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => {}
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => at += 1,
    }
    let blank = |at: usize| source.get(at).is_some_and(|c| c.is_whitespace());
    let mut places = Vec::with_capacity(text.len() + 1);
    for c in text.chars() {
        if c.is_whitespace() {
            // Folding has made one blank of many: the rest is skipped before the next character.
            places.push(at);
            at += usize::from(blank(at));
            continue;
        }
        while blank(at) {
            at += 1;
        }
        places.push(at);
        let escaped = match style {
            ScalarStyle::SingleQuoted => c == '\'' && source.get(at) == Some(&'\''),
            ScalarStyle::DoubleQuoted => matches!(c, '"' | '\\') && source.get(at) == Some(&'\\'),
            _ => false,
        };
        at += usize::from(escaped);
        if source.get(at) != Some(&c) {
            return None;
        }
        at += 1;
    }
    places.push(at);
    Some(places)
}
