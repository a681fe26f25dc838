//! `bulkhead explain KIND.field`: what kinds and fields mean.

use std::fmt::Write as _;

use bulkhead_api::document::{API_VERSION, Kind};

use crate::manifest::fault::nearest;
use crate::schema::{Field, Schemas};

/// Nothing to explain under that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such kind.
    #[error("kind {found:?} is not known: expected one of {known}{near}")]
    NoSuchKind {
        /// As given.
        found: String,
        /// The kinds.
        known: String,
        /// `; did you mean ...?`, or empty.
        near: String,
    },
    /// Arguments that do not go together.
    #[error("{problem}")]
    Misfit {
        /// What does not go, and what does.
        problem: &'static str,
    },
    /// No such field.
    #[error("{parent} has no field {found:?}: {known}{near}")]
    NoSuchField {
        /// Where it was looked for.
        parent: String,
        /// As given.
        found: String,
        /// `it has a, b, c`, or that it has none.
        known: String,
        /// `; did you mean ...?`, or empty.
        near: String,
    },
}

/// The explanation of `KIND` or `KIND.field.path`; with `recursive`, of all fields below it.
///
/// # Errors
/// The part of the path that is not known.
pub fn explain(path: &str, recursive: bool) -> Result<String, ExplainError> {
    let schemas = Schemas::collect();
    let (mut here, mut said) = (None, String::new());
    for part in path.split('.').filter(|p| !p.is_empty()) {
        // `gpus[0]` and `gpus[]` mean the items of the list, which share its fields.
        let part = part.split('[').next().unwrap_or(part);
        let next = match &here {
            None => schemas.kind(kind(part)?),
            Some(parent) => field(&schemas, parent, part, &said)?,
        };
        let dot = if said.is_empty() { "" } else { "." };
        write!(said, "{dot}{}", next.name).unwrap_or_default();
        here = Some(next);
    }
    match here {
        Some(field) => Ok(render(&schemas, &field, &said, recursive)),
        None => Err(no_kind(path)),
    }
}

/// The kind of that name, singular or plural, in any case.
///
/// # Errors
/// It is not a kind.
pub fn kind(name: &str) -> Result<Kind, ExplainError> {
    let small = name.to_lowercase();
    let found =
        Kind::ALL.into_iter().find(|k| k.plural() == small || k.name().to_lowercase() == small);
    found.ok_or_else(|| no_kind(name))
}

fn no_kind(found: &str) -> ExplainError {
    let known = Kind::ALL.map(|kind| kind.name().to_lowercase());
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = did_you_mean(found, &names);
    ExplainError::NoSuchKind { found: found.to_owned(), known: names.join(", "), near }
}

fn field(schemas: &Schemas, parent: &Field, name: &str, said: &str) -> Result<Field, ExplainError> {
    let mut fields = schemas.fields(parent);
    if let Some(at) = fields.iter().position(|field| field.name == name) {
        return Ok(fields.swap_remove(at));
    }
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let known = match names.as_slice() {
        [] => format!("it is {} and has no fields", parent.form),
        names => format!("it has {}", names.join(", ")),
    };
    let near = did_you_mean(name, &names);
    Err(ExplainError::NoSuchField { parent: said.to_owned(), found: name.to_owned(), known, near })
}

fn did_you_mean(found: &str, known: &[&str]) -> String {
    nearest(found, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

fn render(schemas: &Schemas, field: &Field, path: &str, recursive: bool) -> String {
    let mut out = String::new();
    if path.contains('.') {
        line(&mut out, 0, &format!("{path}  <{}>{}", field.form, flag(field)));
    } else {
        line(&mut out, 0, &format!("{path}  {API_VERSION}"));
    }
    out.push('\n');
    for doc in [&field.doc, &field.type_doc] {
        paragraphs(&mut out, 2, doc);
    }
    choices(&mut out, 2, field);
    let fields = schemas.fields(field);
    if !fields.is_empty() {
        out.push_str("\nFields:\n");
        for field in &fields {
            below(&mut out, schemas, field, 2, recursive);
        }
    }
    out
}

fn below(out: &mut String, schemas: &Schemas, field: &Field, indent: usize, recursive: bool) {
    line(out, indent, &format!("{}  <{}>{}", field.name, field.form, flag(field)));
    let doc = if field.doc.is_empty() { &field.type_doc } else { &field.doc };
    paragraphs(out, indent + 4, doc);
    choices(out, indent + 4, field);
    if recursive {
        for child in schemas.fields(field) {
            below(out, schemas, &child, indent + 2, recursive);
        }
    }
}

fn flag(field: &Field) -> &'static str {
    if field.required { "  required" } else { "" }
}

fn choices(out: &mut String, indent: usize, field: &Field) {
    if !field.choices.is_empty() {
        line(out, indent, &format!("One of: {}", field.choices.join(", ")));
    }
}

fn paragraphs(out: &mut String, indent: usize, doc: &str) {
    for text in doc.lines().filter(|text| !text.trim().is_empty()) {
        line(out, indent, text);
    }
}

fn line(out: &mut String, indent: usize, text: &str) {
    writeln!(out, "{:indent$}{text}", "").unwrap_or_default();
}
