//! YAML (and so JSON) as a tree in which each key and value knows its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

/// A place in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl Place {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl From<Location> for Place {
    fn from(at: Location) -> Self {
        Self { line: at.line().max(1), column: at.column().max(1) }
    }
}

/// A value and where it is.
#[derive(Debug)]
pub struct Located {
    /// Where it begins.
    pub at: Place,
    /// What it is.
    pub node: Node,
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub at: Place,
    /// What it maps to.
    pub value: Located,
}

/// A value.
#[derive(Debug)]
pub enum Node {
    /// Null, a truth value, a number or text.
    Scalar(Value),
    /// A sequence.
    List(Vec<Located>),
    /// A mapping; its keys differ, or reading it fails.
    Map(Vec<Entry>),
}

impl Located {
    /// As JSON without places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::to_json).collect(),
            Node::Map(entries) => {
                entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()
            }
        }
    }

    /// The entry of that key, where this is a mapping that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.node {
            Node::Map(entries) => entries.iter().find(|e| e.key == key),
            Node::Scalar(_) | Node::List(_) => None,
        }
    }

    /// Where `path` (`spec.workload.args[0]`) is: its value, and as far as the path goes where the rest
    /// is not there.
    #[must_use]
    pub fn find(&self, path: &str) -> Place {
        let mut here = self;
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let index = step.strip_suffix(']').and_then(|digits| digits.parse::<usize>().ok());
            let next = match (&here.node, index) {
                (Node::List(items), Some(index)) => items.get(index),
                (Node::Map(_), None) => here.entry(step).map(|entry| &entry.value),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here.at
    }

    /// Where the key at the end of `path` is; as [`Located::find`] where it is not there.
    #[must_use]
    pub fn find_key(&self, path: &str) -> Place {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut here = self;
        for step in parent.split('.').filter(|s| !s.is_empty()) {
            match here.entry(step) {
                Some(entry) => here = &entry.value,
                None => return self.find(path),
            }
        }
        here.entry(key).map_or_else(|| self.find(path), |entry| entry.at)
    }
}

impl From<Spanned<Node>> for Located {
    fn from(spanned: Spanned<Node>) -> Self {
        Self { at: spanned.referenced.into(), node: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            list.push(item.into());
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Node>>()? {
            map.push(Entry { key: key.value, at: key.referenced.into(), value: value.into() });
        }
        Ok(Node::Map(map))
    }
}
