//! What is wrong with a manifest: file, line, column, field, what was found, what was expected.

use std::fmt;

use super::node::Place;

/// A fault of a manifest. Its text shows the line at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as named by the user; `-` for standard input.
    pub file: String,
    /// Where in the file.
    pub at: Place,
    /// Path of the field at fault; empty where it is the text as a whole.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
    /// More lines behind the message, each with its line break in front; empty = none.
    pub detail: String,
    /// The way out, where the message does not hold it; empty = none.
    pub help: String,
    /// The line at fault.
    pub line: String,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at: Place { line, column }, path, message, .. } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)?;
        if !self.line.trim().is_empty() {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let before = usize::try_from(*column).unwrap_or(1).saturating_sub(1);
            // Tabs keep their width under the line above.
            let indent: String = (self.line.chars().take(before))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n {number} | {}\n {margin} | {indent}^", self.line)?;
        }
        f.write_str(&self.detail)?;
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

/// A reader's message (serde's) for people, and the way out; empty = none.
#[must_use]
pub fn reword(message: &str) -> (String, String) {
    for prefix in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) =
            message.strip_prefix(prefix).and_then(|rest| rest.split_once(", expected "))
        {
            let help = match expected {
                "a string" => quote(found),
                _ => String::new(),
            };
            return (format!("found {}, expected {}", thing(found), form(expected)), help);
        }
    }
    // serde's structs can be read from lists too, which no document means.
    if message.starts_with("invalid length ") && message.contains(", expected struct ") {
        return ("found a list, expected a mapping".to_owned(), String::new());
    }
    let unknown = [("unknown field ", "unknown field "), ("unknown variant ", "found ")]
        .into_iter()
        .find_map(|(prefix, said)| message.strip_prefix(prefix).map(|rest| (said, rest)));
    let Some((said, rest)) = unknown else {
        return (message.to_owned(), String::new());
    };
    // serde writes the found name and the known ones between backticks, in this order.
    let mut names = rest.split('`').skip(1).step_by(2);
    let found = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let near = nearest(found, &known);
    let help = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
    let expected = match known.as_slice() {
        [] => "nothing here".to_owned(),
        [one] => one.to_string(),
        many => format!("one of {}", many.join(", ")),
    };
    (format!("{said}`{found}`, expected {expected}"), help)
}

/// `string "four"` and the like as people say it.
fn thing(found: &str) -> String {
    let number = found.strip_prefix("integer ").or_else(|| found.strip_prefix("floating point "));
    match (found, number) {
        (_, Some(number)) => format!("the number {}", number.trim_matches('`')),
        ("null" | "unit value", _) => "nothing".to_owned(),
        ("map", _) => "a mapping".to_owned(),
        ("sequence", _) => "a list".to_owned(),
        _ if found.starts_with("string ") => found.replacen("string", "the text", 1),
        _ if found.starts_with("boolean ") => found.replacen("boolean ", "", 1).replace('`', ""),
        _ => found.to_owned(),
    }
}

/// What serde calls an expected form, as people say it.
fn form(expected: &str) -> String {
    match expected {
        "u8" => format!("a whole number, 0 to {}", u8::MAX),
        "u16" => format!("a whole number, 0 to {}", u16::MAX),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a string" | "string or map" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        _ if expected.starts_with("struct ") => "a mapping".to_owned(),
        _ => expected.to_owned(),
    }
}

/// How to write a number or truth value as text.
fn quote(found: &str) -> String {
    found
        .split_once('`')
        .map(|(_, value)| format!("write it in quotes: \"{}\"", value.trim_end_matches('`')))
        .unwrap_or_default()
}

/// The known name that was most likely meant; none where no name is near.
#[must_use]
pub fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let small = found.to_lowercase();
    let near = |name: &&str| {
        let name = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&small, &name);
        let short = small.len() >= 3 && name.starts_with(&small);
        (short || distance <= 1 + name.len() / 4).then_some(distance)
    };
    let near = known.iter().filter_map(|name| near(name).map(|distance| (distance, *name)));
    near.min().map(|(_, name)| name)
}
