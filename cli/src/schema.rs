//! The fields of the kinds, read out of the OpenAPI schemas that the types themselves give.
//!
//! `bulkhead-api` derives the schemas from the structs that programs exchange and from their comments, so
//! that what is explained is what is read.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::document::{Host, Kind, Lease, Site, Tenant};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

/// Schemas of every kind and of what they hold.
#[derive(Debug)]
pub struct Schemas {
    kinds: BTreeMap<Kind, Value>,
    named: BTreeMap<String, Value>,
}

/// A field, or a kind as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As written.
    pub name: String,
    /// `text`, `whole number`, `object`, `list of text`, ...
    pub form: String,
    /// Must be written.
    pub required: bool,
    /// What it means.
    pub doc: String,
    /// What its type means, where the type has a name; empty where it has none.
    pub type_doc: String,
    /// The values it can have, where they can be listed.
    pub choices: Vec<String>,
    schema: Value,
}

impl Schemas {
    /// Collects them.
    #[must_use]
    pub fn collect() -> Self {
        let mut named = Vec::new();
        let mut kinds = BTreeMap::new();
        for kind in Kind::ALL {
            let root = match kind {
                Kind::Site => root::<Site>(&mut named),
                Kind::Host => root::<Host>(&mut named),
                Kind::Tenant => root::<Tenant>(&mut named),
                Kind::Lease => root::<Lease>(&mut named),
            };
            kinds.insert(kind, root);
        }
        let named = named.into_iter().map(|(name, schema)| (name, json(&schema))).collect();
        Self { kinds, named }
    }

    /// A kind as a whole.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> Field {
        let schema = self.kinds.get(&kind).cloned().unwrap_or_default();
        self.field(kind.name(), true, &schema)
    }

    /// The fields of an object, or of the objects of a list; empty for everything else.
    #[must_use]
    pub fn fields(&self, parent: &Field) -> Vec<Field> {
        let object = self.resolve(items(self.resolve(&parent.schema)));
        let mut fields: Vec<Field> = Vec::new();
        let forms = alternatives(object);
        for form in &forms {
            let properties = form.get("properties").and_then(Value::as_object);
            for (name, schema) in properties.into_iter().flatten() {
                // Required is what no form does without.
                let required = forms.iter().all(|form| is_required(form, name));
                let new = self.field(name, required, schema);
                match fields.iter_mut().find(|field| field.name == *name) {
                    Some(field) => field.choices.extend(new.choices),
                    None => fields.push(new),
                }
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        for field in &mut fields {
            let mut seen = BTreeSet::new();
            field.choices.retain(|choice| seen.insert(choice.clone()));
        }
        fields
    }

    fn field(&self, name: &str, required: bool, schema: &Value) -> Field {
        let resolved = self.resolve(schema);
        let said = |schema: &Value| text(schema, "description").map(unlink);
        // Beside a reference the comment of the field stands; an optional one has it a level deeper.
        let own = said(schema).or_else(|| said(without_null(schema))).unwrap_or_default();
        let type_doc = said(resolved).or_else(|| said(self.resolve(items(resolved))));
        let type_doc = type_doc.filter(|doc| *doc != own).unwrap_or_default();
        let choices = self.resolve(items(resolved)).get("enum").and_then(Value::as_array);
        let choices = choices.into_iter().flatten().filter_map(Value::as_str);
        Field {
            name: name.to_owned(),
            form: self.form(resolved),
            required,
            doc: own,
            type_doc,
            choices: choices.map(str::to_owned).collect(),
            schema: schema.clone(),
        }
    }

    /// Follows references and looks through "or null".
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut here = without_null(schema);
        while let Some(name) = text(here, "$ref").and_then(|path| path.rsplit('/').next()) {
            match self.named.get(name) {
                Some(next) => here = without_null(next),
                None => break,
            }
        }
        here
    }

    fn form(&self, schema: &Value) -> String {
        let kinds = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(kind)) => vec![kind.as_str()],
            _ => Vec::new(),
        };
        match kinds.into_iter().find(|kind| *kind != "null") {
            Some("string") if text(schema, "format") == Some("date-time") => "time".to_owned(),
            Some("string") => "text".to_owned(),
            Some("integer") => "whole number".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("array") => format!("list of {}", self.form(self.resolve(items(schema)))),
            Some(other) => other.to_owned(),
            None if alternatives(schema).iter().any(|form| form.get("properties").is_some()) => {
                "object".to_owned()
            }
            None => "anything".to_owned(),
        }
    }
}

fn root<T: ToSchema>(named: &mut Vec<(String, RefOr<Schema>)>) -> Value {
    T::schemas(named);
    json(&<T as PartialSchema>::schema())
}

fn json(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

/// The one alternative that is not null, where a schema is "this or null".
fn without_null(schema: &Value) -> &Value {
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    let mut others = alternatives.into_iter().flatten().filter(|s| text(s, "type") != Some("null"));
    match (others.next(), others.next()) {
        (Some(only), None) => only,
        _ => schema,
    }
}

/// The forms that an object can have: of one that is told apart by a field, each; else itself.
fn alternatives(schema: &Value) -> Vec<&Value> {
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(forms) => forms.iter().collect(),
        None => vec![schema],
    }
}

fn is_required(schema: &Value, name: &str) -> bool {
    let names = schema.get("required").and_then(Value::as_array);
    names.is_some_and(|names| names.iter().any(|required| required == name))
}

/// The schema of the items of a list; of everything else, itself.
fn items(schema: &Value) -> &Value {
    schema.get("items").unwrap_or(schema)
}

/// Links of Rust's documentation as plain names.
fn unlink(doc: &str) -> String {
    doc.replace("[`", "`").replace("`]", "`")
}
