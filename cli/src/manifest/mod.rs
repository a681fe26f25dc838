//! Manifests: files of documents as people write them, in YAML or JSON.
//!
//! ```text
//!  text ──node──► tree with places ──serde──► Document ──LeaseSpec::check──► Manifest
//!                      └────────── a field's path ──fault──► file:line:column, found, expected ◄── registry
//! ```
//!
//! Every document of a file is read before one is used. The places stay with the manifest, so that a
//! refusal of the registry points into the file too.

pub mod fault;
pub mod node;
#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use bulkhead_api::document::{Document, Kind};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;

use self::fault::{Fault, nearest, reword};
use self::node::{Located, Node, Place};

/// A document and where it was read from.
#[derive(Debug)]
pub struct Manifest {
    /// What was read.
    pub document: Document,
    source: Rc<Source>,
    root: Located,
}

#[derive(Debug)]
struct Source {
    file: String,
    text: String,
}

impl Manifest {
    /// The fault of a field of this document, such as the registry reports it.
    #[must_use]
    pub fn fault(&self, path: &str, message: String) -> Box<Fault> {
        self.source.fault(self.root.find(path), path, message, String::new())
    }
}

impl Source {
    fn fault(&self, at: Place, path: &str, message: String, help: String) -> Box<Fault> {
        let index = usize::try_from(at.line).unwrap_or(1).saturating_sub(1);
        let line = self.text.lines().nth(index).unwrap_or_default().trim_end().to_owned();
        let (file, path) = (self.file.clone(), path.to_owned());
        Box::new(Fault { file, at, path, message, detail: String::new(), help, line })
    }
}

/// Reads every document of a file. A list at the top is a list of documents, as `get -o json` prints it.
///
/// # Errors
/// The first fault: of the YAML, of a field, or of a value that no registry would accept.
pub fn read(file: &str, text: &str) -> Result<Vec<Manifest>, Box<Fault>> {
    let source = Rc::new(Source { file: file.to_owned(), text: text.to_owned() });
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let roots = serde_saphyr::from_multiple_with_options::<Spanned<Node>>(text, options);
    let roots = roots.map_err(|error| syntax_fault(&source, &error))?;
    let mut manifests = Vec::new();
    for root in roots.into_iter().map(Located::from) {
        match root.node {
            Node::List(items) => {
                for item in items {
                    manifests.push(manifest(&source, item)?);
                }
            }
            Node::Scalar(_) | Node::Map(_) => manifests.push(manifest(&source, root)?),
        }
    }
    if manifests.is_empty() {
        let message = "no document, expected at least one with apiVersion, kind and metadata";
        return Err(source.fault(Place::START, "", message.to_owned(), String::new()));
    }
    Ok(manifests)
}

fn syntax_fault(source: &Source, error: &serde_saphyr::Error) -> Box<Fault> {
    let at = error.location().map_or(Place::START, Place::from);
    let text = error.to_string();
    // The place stands in front already; hints for programmers are not for users.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or(text);
    source.fault(at, "", format!("not YAML: {text}"), String::new())
}

fn manifest(source: &Rc<Source>, root: Located) -> Result<Manifest, Box<Fault>> {
    let document = document(source, &root)?;
    let checked = match &document {
        Document::Lease(lease) => lease.spec.check(),
        Document::Site(_) | Document::Host(_) | Document::Tenant(_) => Ok(()),
    };
    checked.map_err(|(path, message)| {
        let help = format!("bulkhead explain lease.{}", unnumbered(&path));
        source.fault(root.find(&path), &path, message, help)
    })?;
    Ok(Manifest { document, source: Rc::clone(source), root })
}

/// A path without the numbers of list items, as `explain` takes it.
fn unnumbered(path: &str) -> String {
    path.split('.').filter_map(|step| step.split('[').next()).collect::<Vec<_>>().join(".")
}

fn document(source: &Source, root: &Located) -> Result<Document, Box<Fault>> {
    let (kind, fields) = kind(source, root)?;
    match kind {
        Kind::Site => typed(source, root, kind, fields).map(Document::Site),
        Kind::Host => typed(source, root, kind, fields).map(Document::Host),
        Kind::Tenant => typed(source, root, kind, fields).map(Document::Tenant),
        Kind::Lease => typed(source, root, kind, fields).map(Document::Lease),
    }
}

/// The kind and the other fields.
fn kind(source: &Source, root: &Located) -> Result<(Kind, Value), Box<Fault>> {
    let known = Kind::ALL.map(Kind::name);
    let Value::Object(mut fields) = root.to_json() else {
        let message = "expected a document: a mapping with apiVersion, kind, metadata and spec";
        return Err(source.fault(root.at, "", message.to_owned(), String::new()));
    };
    let expected = format!("expected one of {}", known.join(", "));
    let found = match fields.remove("kind") {
        Some(Value::String(found)) => found,
        Some(other) => {
            let message = format!("found {other}, {expected}");
            return Err(source.fault(root.find("kind"), "kind", message, String::new()));
        }
        None => {
            let message = format!("missing, {expected}");
            return Err(source.fault(root.at, "kind", message, String::new()));
        }
    };
    match Kind::ALL.into_iter().find(|kind| kind.name() == found) {
        Some(kind) => Ok((kind, Value::Object(fields))),
        None => {
            let help = nearest(&found, &known).map(|near| format!("did you mean `{near}`?"));
            let message = format!("found `{found}`, {expected}");
            Err(source.fault(root.find("kind"), "kind", message, help.unwrap_or_default()))
        }
    }
}

fn typed<T: DeserializeOwned>(
    source: &Source,
    root: &Located,
    kind: Kind,
    fields: Value,
) -> Result<T, Box<Fault>> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { path.as_str() };
        let message = error.inner().to_string();
        field_fault(source, root, kind, path, &message)
    })
}

fn field_fault(
    source: &Source,
    root: &Located,
    kind: Kind,
    path: &str,
    message: &str,
) -> Box<Fault> {
    let explain = |path: &str| {
        // The items of a list share its fields.
        let parts = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
        let path = parts.collect::<Vec<_>>().join(".");
        let dot = if path.is_empty() { "" } else { "." };
        format!("bulkhead explain {}{dot}{path}", kind.name().to_lowercase())
    };
    let missing = message.strip_prefix("missing field `").map(|rest| rest.trim_end_matches('`'));
    if let Some(field) = missing {
        let full = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        let (at, help) = (root.find_key(path), explain(&full));
        return source.fault(at, &full, "missing".to_owned(), help);
    }
    let (said, help) = reword(message);
    let unknown = message.starts_with("unknown field ");
    let at = if unknown { root.find_key(path) } else { root.find(path) };
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    let help = match (help.is_empty(), unknown) {
        (false, _) => help,
        (true, true) => explain(parent),
        (true, false) => explain(path),
    };
    source.fault(at, path, said, help)
}
