use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::firewall::{compile, sample};

/// What `nft -j list table` prints of a ruleset, written by hand: the half of the language that read-back must know.
fn listing(objects: &Value) -> Vec<u8> {
    let mut all = vec![json!({ "metainfo": { "version": "1.1.3", "json_schema_version": 1 } })];
    all.extend(objects.as_array().unwrap().iter().cloned());
    serde_json::to_vec(&json!({ "nftables": all })).unwrap()
}

fn chain_with(expressions: &Value) -> Vec<u8> {
    listing(&json!([
        { "table": { "family": "inet", "name": TABLE, "handle": 1 } },
        { "chain": { "family": "inet", "table": TABLE, "name": "c", "handle": 2 } },
        { "rule": { "family": "inet", "table": TABLE, "chain": "c", "handle": 3, "expr": expressions } },
    ]))
}

fn rule_of(expressions: &Value) -> Result<Rule, JsonError> {
    let ruleset = parse(&chain_with(expressions))?;
    Ok(ruleset.tables[&Family::Inet].chains["c"].rules[0].clone())
}

#[test]
fn a_port_is_a_protocol_and_a_port_however_it_is_said() {
    let payload = |protocol: &str| json!({ "payload": { "protocol": protocol, "field": "dport" } });
    let short =
        json!([{ "match": { "op": "==", "left": payload("udp"), "right": 53 } }, { "drop": null }]);
    let long = json!([
        { "match": { "op": "==", "left": { "meta": { "key": "l4proto" } }, "right": "udp" } },
        { "match": { "op": "==", "left": payload("th"), "right": 53 } },
        { "drop": null },
    ]);
    assert_eq!(rule_of(&short), rule_of(&long));
    assert_eq!(rule_of(&short).unwrap().to_string(), "meta l4proto 17 th dport 53 drop");
}

#[test]
fn prefixes_that_touch_are_one_set_however_they_are_said() {
    let right = |right: Value| {
        let left = json!({ "payload": { "protocol": "ip", "field": "daddr" } });
        rule_of(&json!([{ "match": { "op": "==", "left": left, "right": right } }])).unwrap()
    };
    let prefix = |addr: &str, len: u8| json!({ "prefix": { "addr": addr, "len": len } });
    let both = right(json!({ "set": [prefix("10.0.1.0", 24), prefix("10.0.0.0", 24)] }));
    assert_eq!(both, right(prefix("10.0.0.0", 23)));
    assert_eq!(both, right(json!({ "range": ["10.0.0.0", "10.0.1.255"] })));
    assert_eq!(both.to_string(), "ip daddr 10.0.0.0/23");
}

#[test]
fn what_is_not_understood_is_named_with_its_place() {
    let meta = json!({ "meta": { "key": "iifname" } });
    let cases = [
        (json!([{ "queue": null }]), "nftables[3].rule.expr[0]: unknown statement \"queue\""),
        (
            json!([{ "match": { "op": "<", "left": meta, "right": "a" } }]),
            "nftables[3].rule.expr[0].match.op: expected \"==\", \"!=\", or \"in\" for conntrack's state, found \"<\"",
        ),
        (
            json!([{ "match": { "op": "==", "left": meta, "right": "bp*" } }]),
            "nftables[3].rule.expr[0].match.right: expected the whole name of a link, found \"bp*\"",
        ),
        (
            json!([{ "match": { "op": "==", "left": { "payload": { "protocol": "ether", "field": "type" } },
                "right": 8 } }]),
            "nftables[3].rule.expr[0].match.right: expected the word for an Ethernet type, found 8",
        ),
        (
            json!([{ "match": { "op": "==", "left": { "meta": { "key": "iifgroup" } },
                "right": 4_294_967_296_u64 } }]),
            "nftables[3].rule.expr[0].match.right: expected a number of its type, found 4294967296",
        ),
        (
            json!([{ "limit": { "rate": 5, "burst": 5, "per": "minute" } }]),
            "nftables[3].rule.expr[0].limit.per: expected \"second\", found \"minute\"",
        ),
        (json!([{ "accept": {} }]), "nftables[3].rule.expr[0].accept: expected null, found {}"),
    ];
    for (expressions, wanted) in cases {
        let error = rule_of(&expressions).unwrap_err().to_string();
        assert_eq!(error, format!("nft's answer, {wanted}"));
    }
}

#[test]
fn a_table_that_sleeps_or_a_chain_of_another_kind_is_not_taken_for_ours() {
    let table = |extra: Value| {
        let mut table = json!({ "family": "inet", "name": TABLE, "handle": 1 });
        table.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ "table": table })
    };
    assert!(parse(&listing(&json!([table(json!({}))]))).is_ok());
    assert!(parse(&listing(&json!([table(json!({ "flags": "dormant" }))]))).is_err());
    let chain = |kind: &str, policy: &str| {
        json!([table(json!({})), { "chain": { "family": "inet", "table": TABLE, "name": "c", "handle": 2,
            "type": kind, "hook": "input", "prio": 0, "policy": policy } }])
    };
    assert!(parse(&listing(&chain("filter", "drop"))).is_ok());
    assert!(parse(&listing(&chain("nat", "drop"))).is_err());
    assert!(parse(&listing(&chain("filter", "maybe"))).is_err());
    // Once more the same.
    assert!(parse(&listing(&json!([table(json!({})), table(json!({}))]))).is_err());
}

#[test]
fn tables_of_others_are_passed_over() {
    let foreign = json!([
        { "table": { "family": "ip", "name": "theirs", "handle": 1, "flags": "dormant" } },
        { "rule": { "family": "ip", "table": "theirs", "chain": "x", "handle": 2, "expr": [{ "queue": null }] } },
    ]);
    assert_eq!(parse(&listing(&foreign)), Ok(Ruleset::default()));
}

#[test]
fn a_counter_is_read_and_a_half_one_is_an_error() {
    let counter = |bytes: Value| {
        json!([{ "counter": { "family": "bridge", "name": "sent/t1", "table": TABLE, "handle": 4,
            "packets": 7, "bytes": bytes } }])
    };
    let read = parse_counters(&listing(&counter(json!(700)))).unwrap();
    let counted = Counted { packets: 7, bytes: 700 };
    assert_eq!(read, [((Family::Bridge, "sent/t1".to_owned()), counted)].into());
    assert!(parse_counters(&listing(&counter(json!(-1)))).is_err());
}

/// Any JSON of the words that the parser looks for.
fn words() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "bulkhead", "inet", "bridge", "table", "name", "family", "chain", "rule", "expr", "match",
        "op", "==", "left", "right", "meta", "key", "iifname", "set", "map", "elem", "concat",
        "type", "ifname", "typeof", "payload", "protocol", "field", "ip", "saddr", "prefix",
        "addr", "len", "10.0.0.0", "range", "nftables", "counter", "vmap", "data", "@x", "limit",
        "accept", "goto", "target", "flags", "interval",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let read = parse(&bytes);
        prop_assert!(read.is_err() || serde_json::from_slice::<Value>(&bytes).is_ok());
        let _counters = parse_counters(&bytes);
    }

    #[test]
    fn any_json_of_nfts_words_is_read_or_refused(value in words()) {
        let _refused = parse(&serde_json::to_vec(&value).unwrap());
        let _refused = parse(&listing(&json!([value.clone()])));
        let _refused = parse(&chain_with(&json!([value])));
    }

    #[test]
    fn an_answer_cut_short_is_refused(at in any::<prop::sample::Index>()) {
        let whole = chain_with(&json!([{ "accept": null }]));
        prop_assert!(parse(&whole[..at.index(whole.len())]).is_err());
    }

    #[test]
    fn a_change_names_what_differs_and_nothing_where_nothing_does(
        before in (1_u16..4, 1_u16..3, 1_u16..3),
        after in (1_u16..4, 1_u16..3, 1_u16..3),
    ) {
        let of = |(tenants, networks, ports)| {
            compile(&sample::desired(tenants, networks, ports), &sample::access()).ruleset
        };
        let (old, new) = (of(before), of(after));
        prop_assert_eq!(change(&old, &new).is_none(), old == new);
        prop_assert_eq!(differences(&old, &new).is_empty(), old == new);
    }
}

#[test]
fn a_set_of_another_shape_is_made_anew_with_its_table() {
    let old = compile(&sample::desired(1, 1, 1), &sample::access()).ruleset;
    let mut new = old.clone();
    let set = |rules: &mut Ruleset| {
        let table = rules.tables.get_mut(&Family::Bridge).unwrap();
        table.sets.get_mut("macs").unwrap().shape = Shape::Interval;
    };
    set(&mut new);
    let text = change(&old, &new).unwrap();
    assert!(text.starts_with("delete table bridge bulkhead\ntable bridge bulkhead {"), "{text}");
    assert!(!text.contains("inet"));
}
