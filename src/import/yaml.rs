//! YAML as a tree of texts. An alias is a second owner of the same node, so that a small file stays small in memory, however often
//! it repeats itself.

use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Deeper than any compose file, and no danger for the stack.
const DEEPEST: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    Null,
    /// Numbers and booleans too: they mean what their text says.
    Text(String),
    List(Vec<Rc<Node>>),
    /// In the order of the file.
    Map(Vec<(String, Rc<Node>)>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum YamlError {
    #[error("is no YAML: {0}")]
    Syntax(String),
    #[error("is nested more than {DEEPEST} deep")]
    TooDeep,
    #[error("has a key that is no text")]
    Key,
}

impl Node {
    /// The first document; an empty text is [`Node::Null`].
    pub(super) fn parse(text: &str) -> Result<Rc<Self>, YamlError> {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|error| YamlError::Syntax(error.to_string()))?;
            match event {
                Event::DocumentEnd => break,
                other => builder.take(other)?,
            }
        }
        Ok(builder.root.unwrap_or_else(|| Rc::new(Self::Null)))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a map, those of `<<` included where it has no own.
    pub(super) fn entries(&self) -> Vec<(&str, &Node)> {
        let mut found: Vec<(&str, &Node)> = Vec::new();
        self.gather(&mut found, DEEPEST);
        found
    }

    fn gather<'n>(&'n self, found: &mut Vec<(&'n str, &'n Node)>, depth: usize) {
        let (Self::Map(entries), 1..) = (self, depth) else { return };
        for (key, value) in entries.iter().filter(|(key, _)| key != "<<") {
            if !found.iter().any(|(known, _)| known == key) {
                found.push((key, value));
            }
        }
        for (_, value) in entries.iter().filter(|(key, _)| key == "<<") {
            match &**value {
                Self::List(merged) => merged.iter().for_each(|node| node.gather(found, depth - 1)),
                node => node.gather(found, depth - 1),
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    pub(super) fn list(&self) -> Option<impl Iterator<Item = &Node>> {
        match self {
            Self::List(items) => Some(items.iter().map(|item| &**item)),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Builder {
    root: Option<Rc<Node>>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
}

/// A list or a map that is not at its end.
struct Open {
    anchor: usize,
    node: Node,
    /// Of a map: the key whose value comes next.
    key: Option<String>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let node = if is_null { Node::Null } else { Node::Text(text.into_owned()) };
                self.put(node, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(Node::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.begin(Node::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, node, .. }) => self.put(node, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().unwrap_or_else(|| Rc::new(Node::Null));
                self.add(node)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.open.push(Open { anchor, node, key: None });
        if self.open.len() > DEEPEST { Err(YamlError::TooDeep) } else { Ok(()) }
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        let node = Rc::new(node);
        // 0: it has none.
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node)
    }

    fn add(&mut self, value: Rc<Node>) -> Result<(), YamlError> {
        let Some(Open { node, key, .. }) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match (node, key.take()) {
            (Node::Map(entries), Some(key)) => entries.push((key, value)),
            (Node::Map(_), None) => *key = Some(value.text().ok_or(YamlError::Key)?.to_owned()),
            (Node::List(items), _) => items.push(value),
            (Node::Null | Node::Text(_), _) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn maps_lists_texts_and_what_is_merged() {
        let root =
            Node::parse("x: &base {a: 1, b: yes}\ny:\n  <<: *base\n  b: ['2', ~, null, \"\"]\n").unwrap();
        let y = root.get("y").unwrap();
        assert_eq!(y.get("a").and_then(Node::text), Some("1"));
        let items: Vec<_> = y.get("b").unwrap().list().unwrap().map(Node::text).collect();
        assert_eq!(items, [Some("2"), None, None, Some("")]);
        assert_eq!(y.entries().iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(*Node::parse("").unwrap(), Node::Null);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(matches!(Node::parse("a: [1"), Err(YamlError::Syntax(_))));
        assert_eq!(Node::parse("[a]: 1"), Err(YamlError::Key));
        assert_eq!(Node::parse(&"[".repeat(100)), Err(YamlError::TooDeep));
    }

    /// Ten aliases of ten aliases, twenty deep: more nodes than there is memory, in forty lines.
    #[test]
    fn a_text_that_repeats_itself_stays_small() {
        let mut text = "a0: &a0 x\n".to_owned();
        for level in 1..20 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(Node::parse(&text).unwrap().entries().len(), 20);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a:\\-\\[\\]{}&*<>|'\"# \n\t,?!%@`~1]{0,60}") {
            let _ = Node::parse(&text).map(|root| root.entries().len());
        }
    }
}
