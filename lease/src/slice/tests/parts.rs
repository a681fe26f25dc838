//! Compute instances within a GPU instance.

use super::super::compute::{Part, plan};
use super::h100;

fn part(tenant: &str, slices: u8) -> Part {
    Part { tenant: tenant.parse().unwrap(), slices }
}

#[test]
fn parts_of_one_tenant_fill_a_gpu_instance_the_largest_first() {
    let geometry = h100();
    let three = geometry.profile(9).unwrap();
    let made = plan(three, &[], &[part("acme", 1), part("acme", 2)]).unwrap();
    assert_eq!(made.iter().map(|part| part.slices).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(made[0].id, 1);
    let made = plan(three, &[part("acme", 2)], &[part("acme", 1)]).unwrap();
    assert_eq!(made.len(), 1);
}

#[test]
fn a_part_that_cannot_be_says_why() {
    let geometry = h100();
    let words = |id: u32, standing: &[Part], wanted: &[Part]| {
        plan(geometry.profile(id).unwrap(), standing, wanted).unwrap_err().to_string()
    };
    assert_eq!(
        words(9, &[part("acme", 1)], &[part("rival", 1)]),
        "3g.40gb: compute instances of acme and rival would share memory"
    );
    assert_eq!(words(5, &[], &[part("acme", 3)]), "4g.40gb: no compute instance of 3 slices");
    assert_eq!(words(9, &[], &[part("acme", 0)]), "3g.40gb: no compute instance of 0 slices");
    assert_eq!(
        words(9, &[part("acme", 2)], &[part("acme", 2)]),
        "3g.40gb: compute instances of 4 slices, it has 3"
    );
}
