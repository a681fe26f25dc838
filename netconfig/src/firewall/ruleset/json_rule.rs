//! Statements of rules, as `nft -j` prints them.

use serde_json::Value;

use super::json::link;
use super::json_field::{fields, names_of, span};
use super::json_value::At;
use super::{Field, JsonError, Kind, Limit, Ranges, Statement, Values, Verdict};

/// Adds what one expression says to a rule.
pub(super) fn statement(at: &At<'_>, rule: &mut Vec<Statement>) -> Result<(), JsonError> {
    let (word, inner) = at.only()?;
    let looked_up = |inner: &At<'_>| -> Result<(Vec<Field>, String), JsonError> {
        inner.object(&["key", "data"])?;
        let (fields, implied) = fields(&inner.get("key")?)?;
        let data = inner.get("data")?;
        let map = data.text()?.strip_prefix('@');
        match (map, implied) {
            (Some(map), None) => Ok((fields, map.to_owned())),
            _ => Err(inner.unexpected("fields and a named map")),
        }
    };
    let found = match word {
        "match" => return matching(&inner, rule),
        "vmap" => {
            let (fields, map) = looked_up(&inner)?;
            Statement::VerdictMap { fields, map }
        }
        "limit" => {
            inner.object(&["rate", "burst", "per"])?;
            Statement::Limit(limit(&inner)?)
        }
        "set" => above(&inner)?,
        "counter" => match (inner.value.as_str(), inner.optional("map")) {
            (Some(name), _) => Statement::CountIn(name.to_owned()),
            (None, Some(map)) => {
                inner.object(&["map"])?;
                let (fields, map) = looked_up(&map)?;
                Statement::CountBy { fields, map }
            }
            (None, None) => {
                inner.object(&["packets", "bytes"])?;
                Statement::Count
            }
        },
        "mangle" => {
            inner.object(&["key", "value"])?;
            let key = inner.get("key")?;
            let is = |path, word| key.value.pointer(path).and_then(Value::as_str) == Some(word);
            let value = inner.get("value")?;
            value.object(&["map"])?;
            let (fields, map) = looked_up(&value.get("map")?)?;
            match (is("/ct/key", "zone"), is("/meta/key", "mark")) {
                (true, false) => Statement::ZoneBy { fields, map },
                (false, true) => Statement::MarkBy { fields, map },
                _ => return Err(key.unexpected("either ct zone or meta mark")),
            }
        }
        _ => {
            let verdict = verdict(word, &inner)?;
            Statement::Verdict(
                verdict.ok_or_else(|| at.wrong(format!("unknown statement {word:?}")))?,
            )
        }
    };
    rule.push(found);
    Ok(())
}

fn limit(at: &At<'_>) -> Result<Limit, JsonError> {
    let per = at.get("per")?;
    if per.text()? != "second" {
        return Err(per.unexpected("\"second\""));
    }
    Ok(Limit { packets_a_second: at.get("rate")?.number()?, burst: at.get("burst")?.number()? })
}

/// `update @set { field limit rate over … }`.
fn above(at: &At<'_>) -> Result<Statement, JsonError> {
    at.object(&["op", "elem", "set", "stmt"])?;
    let (operation, set, statements) = (at.get("op")?, at.get("set")?, at.get("stmt")?);
    if operation.text()? != "update" {
        return Err(operation.unexpected("\"update\""));
    }
    let name = set.text()?.strip_prefix('@').ok_or_else(|| set.unexpected("a named set"))?;
    let (fields, implied) = fields(&at.get("elem")?)?;
    let mut inner = statements.items()?;
    let (Some(only), None, None) = (inner.next(), inner.next(), implied) else {
        return Err(at.unexpected("fields and one limit"));
    };
    let (word, rate) = only.only()?;
    rate.object(&["rate", "burst", "per", "inv"])?;
    let over = rate.get("inv")?;
    if word != "limit" || over.value.as_bool() != Some(true) {
        return Err(only.unexpected("a limit of what is over a rate"));
    }
    Ok(Statement::Above { fields, set: name.to_owned(), limit: limit(&rate)? })
}

/// A verdict; none where the word is no verdict.
pub(super) fn verdict(word: &str, at: &At<'_>) -> Result<Option<Verdict>, JsonError> {
    let target = || -> Result<String, JsonError> {
        at.object(&["target"])?;
        Ok(at.get("target")?.text()?.to_owned())
    };
    let plain = match word {
        "accept" => Verdict::Accept,
        "drop" => Verdict::Drop,
        "return" => Verdict::Return,
        "jump" => return target().map(|chain| Some(Verdict::Jump(chain))),
        "goto" => return target().map(|chain| Some(Verdict::Goto(chain))),
        _ => return Ok(None),
    };
    if at.value.is_null() { Ok(Some(plain)) } else { Err(at.unexpected("null")) }
}

fn matching(at: &At<'_>, rule: &mut Vec<Statement>) -> Result<(), JsonError> {
    at.object(&["op", "left", "right"])?;
    let (fields, implied) = fields(&at.get("left")?)?;
    let (operator, right) = (at.get("op")?, at.get("right")?);
    let states = fields.as_slice() == [Field::CtState];
    let negated = match operator.text()? {
        "==" if !states => false,
        "!=" if !states => true,
        "in" if states => false,
        _ => return Err(operator.unexpected("\"==\", \"!=\", or \"in\" for conntrack's state")),
    };
    if let Some(protocol) = implied {
        let values = Values::Numbers(Ranges::one(protocol));
        let explicit = Statement::Match { fields: vec![Field::Protocol], negated: false, values };
        if !rule.contains(&explicit) {
            rule.push(explicit);
        }
    }
    let values = match right.value.as_str().and_then(|word| word.strip_prefix('@')) {
        Some(set) => Values::Set(set.to_owned()),
        None => literals(&right, &fields)?,
    };
    rule.push(Statement::Match { fields, negated, values });
    Ok(())
}

fn literals(at: &At<'_>, fields: &[Field]) -> Result<Values, JsonError> {
    let [field] = fields else { return Err(at.unexpected("a named set")) };
    if *field == Field::Ip6Fragment {
        let there = at.value.as_bool().ok_or_else(|| at.unexpected("true or false"))?;
        return Ok(Values::Numbers(Ranges::one(there.into())));
    }
    let several = at.optional("set");
    let listed = match (&several, at.value) {
        (Some(set), _) => {
            at.object(&["set"])?;
            Some(set)
        }
        // Conntrack's states are a bare list.
        (None, Value::Array(_)) if *field == Field::CtState => Some(at),
        (None, _) => None,
    };
    if field.kind() == Kind::Link {
        let names = match listed {
            Some(list) => list.items()?.map(|item| link(&item)).collect::<Result<_, _>>()?,
            None => [link(at)?].into(),
        };
        return Ok(Values::Names(names));
    }
    let names = names_of(*field);
    let ranges = match listed {
        Some(list) => {
            list.items()?.map(|item| span(&item, field.kind(), names)).collect::<Result<_, _>>()?
        }
        None => [span(at, field.kind(), names)?].into_iter().collect(),
    };
    Ok(Values::Numbers(ranges))
}
