//! `get -w`: what there is, then what changes.
//!
//! ```text
//!  open watch ─► list ─► rows that differ from those shown ─► events, one by one ─┐
//!      ▲                                                                          │ watch ends
//!      └──────────────────────────── pause ◄──────────────────────────────────────┘
//! ```
//!
//! The watch is opened before the list is read, so that nothing happens unseen between the two; what was
//! shown and is not in the list of a later round went while no watch was open.

use std::collections::BTreeMap;
use std::thread;

use bulkhead_api::chain::Chain;
use bulkhead_api::document::{Document, WatchEvent, WatchKind};
use bulkhead_api::time::Timestamp;

use super::error::VerbError;
use super::get::{self, Query};
use super::target::Target;
use crate::args::Format;
use crate::console::Console;
use crate::rest::Registry;
use crate::view::rows;
use crate::view::table::Lines;

/// Shows changes until it is interrupted. A registry that goes away is waited for.
pub(super) fn watch(
    registry: &Registry,
    query: &Query,
    console: &mut Console,
) -> Result<(), VerbError> {
    let mut shown = Shown::new(query);
    loop {
        let why = match follow(registry, query, &mut shown, console) {
            Ok(()) => "the registry ended it".to_owned(),
            Err(VerbError::Rest(error)) if error.is_passing() && shown.began => {
                Chain(&error).to_string()
            }
            Err(error) => return Err(error),
        };
        console.complain(format_args!("watch broken: {why}; opening another\n"));
        thread::sleep(console.pause.saturating_mul(4));
    }
}

/// One round: returns when the watch ends.
fn follow(
    registry: &Registry,
    query: &Query,
    shown: &mut Shown,
    console: &mut Console,
) -> Result<(), VerbError> {
    let events = registry.watch(query.kind, query.tenant.as_ref())?;
    // An object that was there once may be waited for to come again.
    let documents = match &query.one {
        Some(target) if shown.began => registry.find(target)?.into_iter().collect(),
        _ => get::look(registry, query)?,
    };
    let texts = shown.all(documents, console.now(), console.colour_out)?;
    console.print(format_args!("{texts}"))?;
    for event in events {
        let event = event?;
        let wanted = query.one.as_ref().is_none_or(|one| *one == Target::of(&event.object));
        if wanted && let Some(text) = shown.event(&event, console.now(), console.colour_out)? {
            console.print(format_args!("{text}"))?;
        }
    }
    Ok(())
}

/// What is on the screen.
#[derive(Debug)]
struct Shown {
    format: Format,
    /// The header was printed.
    began: bool,
    header: Vec<&'static str>,
    lines: Lines,
    /// By name: the document, and that of it which is worth a line when it changes.
    last: BTreeMap<String, (Document, String)>,
}

impl Shown {
    fn new(query: &Query) -> Self {
        let header = rows::header(query.kind, query.format == Format::Wide);
        let lines = Lines::new(&header);
        Self { format: query.format, began: false, header, lines, last: BTreeMap::new() }
    }

    /// The text of a round's list: all of it at first, later what differs.
    fn all(
        &mut self,
        documents: Vec<Document>,
        now: Timestamp,
        colour: bool,
    ) -> Result<String, VerbError> {
        let mut text = String::new();
        let table = matches!(self.format, Format::Table | Format::Wide);
        if table && !self.began {
            for document in &documents {
                self.lines.widen(&rows::row(document, now, self.format == Format::Wide));
            }
            text.push_str(&self.lines.header());
        }
        self.began = true;
        let mut missing = self.last.clone();
        for object in documents {
            missing.remove(&rows::name(&object));
            let event = WatchEvent { kind: WatchKind::Snapshot, object };
            text.extend(self.event(&event, now, colour)?);
        }
        for (_, (object, _)) in missing {
            let event = WatchEvent { kind: WatchKind::Deleted, object };
            text.extend(self.event(&event, now, colour)?);
        }
        Ok(text)
    }

    /// The text of an event; none where it changes nothing that is shown.
    fn event(
        &mut self,
        event: &WatchEvent,
        now: Timestamp,
        colour: bool,
    ) -> Result<Option<String>, VerbError> {
        let (object, name) = (&event.object, rows::name(&event.object));
        let wide = self.format == Format::Wide;
        if event.kind == WatchKind::Deleted {
            self.last.remove(&name);
        } else {
            let worth = match self.format {
                Format::Table | Format::Wide => self.worth(&rows::row(object, now, wide)),
                Format::Yaml | Format::Json => get::as_yaml(object)?,
            };
            let before = self.last.insert(name, (object.clone(), worth.clone()));
            if before.is_some_and(|(_, before)| before == worth) {
                return Ok(None);
            }
        }
        Ok(Some(match (self.format, event.kind) {
            (Format::Json, _) => {
                let text = serde_json::to_string(event).map_err(|source| VerbError::Show {
                    what: rows::title(object),
                    source: Box::new(source),
                })?;
                format!("{text}\n")
            }
            (Format::Yaml, WatchKind::Deleted) => {
                format!("---\n# {} deleted\n", rows::title(object))
            }
            (Format::Yaml, _) => format!("---\n{}", get::as_yaml(object)?),
            (Format::Table | Format::Wide, WatchKind::Deleted) => {
                format!("{} deleted\n", rows::title(object))
            }
            (Format::Table | Format::Wide, _) => {
                let row = rows::row(object, now, wide);
                self.lines.widen(&row);
                self.lines.row(&row, colour)
            }
        }))
    }

    /// The cells that do not change by the passing of time alone.
    fn worth(&self, row: &[String]) -> String {
        let cells = self.header.iter().zip(row).filter(|(column, _)| !rows::is_clock(column));
        cells.map(|(_, cell)| cell.as_str()).collect::<Vec<_>>().join("\0")
    }
}
