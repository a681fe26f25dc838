//! Random hosts through random lives.

use bulkhead_api::lease::Holding;
use proptest::prelude::*;

use super::hosts::{Event, events, shapes};
use super::oracle::judge;
use super::{brute, id};
use crate::place::{Taken, free, place};

/// Lets a host live, with every answer judged. `exact` = refusals too, by trying everything.
fn live(shape: &super::hosts::Shape, events: Vec<Event>, exact: bool) -> Result<(), TestCaseError> {
    let host = shape.host();
    let mut taken = Taken::default();
    for (number, event) in events.into_iter().enumerate() {
        match event {
            Event::Wants(request) => {
                let answer = place(&host, &taken, &request);
                prop_assert_eq!(&answer, &place(&host.clone(), &taken.clone(), &request));
                match answer {
                    Ok(holding) => {
                        if let Err(law) = judge(&host, &taken, &request, &holding) {
                            prop_assert!(false, "{law}: {request:?} got {holding:?}");
                        }
                        taken.held.insert(id(number), holding);
                    }
                    Err(shortage) => {
                        prop_assert!(!shortage.short().is_empty());
                        prop_assert_eq!(shortage.free, free(&host, &taken));
                        let wrong = exact && brute::possible(&host, &taken, &request);
                        prop_assert!(!wrong, "{shortage} is not true of {request:?}");
                    }
                }
            }
            Event::Leaves(who, clean) if !taken.held.is_empty() => {
                let there: Vec<_> = taken.held.keys().cloned().collect();
                let gone: Holding = taken.held.remove(who.get(&there)).unwrap();
                if !clean {
                    taken.quarantined.extend(gone.resources());
                }
            }
            Event::Leaves(..) => {}
            Event::Cleaned => taken.quarantined.clear(),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_two_leases_share_what_their_levels_keep_apart(shape in shapes(40), events in events()) {
        live(&shape, events, false)?;
    }

    #[test]
    fn what_is_refused_on_a_small_host_has_no_place_at_all(shape in shapes(9), events in events()) {
        live(&shape, events, true)?;
    }
}
